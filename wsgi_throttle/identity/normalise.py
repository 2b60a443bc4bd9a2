"""One text for all spellings of a value that most applications take for one value."""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import normalize

from .body import UnreadableError, bounded

UNICODE_VERSION = "17.0.0"
"""The version of Unicode whose Default_Ignorable_Code_Point is IGNORABLE."""

IGNORABLE = (
    *((0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5)),
    *((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3)),
    *((0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
"""The first and last code points of the ranges of characters that are not to be seen
(Default_Ignorable_Code_Point in DerivedCoreProperties.txt of the Unicode Character Database)."""

_CONTROLS = ((0x00, 0x1F), (0x7F, 0x9F))
"""The same of the control characters (General_Category Cc)."""

_DROPPED = {
    code: None for first, last in (*IGNORABLE, *_CONTROLS) for code in range(first, last + 1)
}


def normalised(value: str) -> str:
    """NFKC (Unicode Standard Annex 15), case folded, without characters that cannot be seen and
    without surrounding spaces. Normalising twice changes nothing more.

    Accents are kept, and so is the dotless i: ``jose`` and ``josé`` are two values.
    """
    if value.isascii():
        return value.translate(_DROPPED).lower().strip()
    # What is dropped may have stood between two characters that are one when they meet.
    return _folded(_folded(value).translate(_DROPPED)).strip()


def normalised_values(values: Iterable[str]) -> list[str]:
    """The distinct values, each of them normalised, without those that are blank.

    :raises UnreadableError: there are too many, or one is too long, or has nothing that is to be
        seen and yet is not blank.
    """
    found = list(dict.fromkeys(map(normalised, bounded(values))))
    if "" in found:
        raise UnreadableError
    return found


def _folded(value: str) -> str:
    return normalize("NFKC", normalize("NFKC", value).casefold())
