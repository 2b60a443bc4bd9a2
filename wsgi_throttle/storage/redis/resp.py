"""The commands that are sent to Redis and what its replies say, as bytes (RESP2, its protocol)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha1
from struct import pack

from ...decision import Charge, Decision, Measured, Term, Terms
from ...errors import StorageError
from ...strategies import STRATEGIES


class Script:
    """The two ways to run take.lua: by its digest, or by its text where the server forgot it."""

    __slots__ = ("evalsha", "evaluate", "load")

    def __init__(self, text: bytes) -> None:
        digest = sha1(text, usedforsecurity=False).hexdigest().encode()
        self.evalsha = bulk(b"EVALSHA") + bulk(digest)
        self.evaluate = bulk(b"EVAL") + bulk(text)
        self.load = b"*3\r\n" + bulk(b"SCRIPT") + bulk(b"LOAD") + bulk(text)
        """A whole command."""


class TakeCommand:
    """The command that charges clients by these terms. Immutable."""

    __slots__ = ("_arguments", "_begin", "_keys", "_number", "_terms")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._begin = b"*%d\r\n" % (3 + 2 * len(terms))
        self._number = bulk(b"%d" % len(terms))
        self._keys = [(term.bucket, term.limit.tag) for term in terms]
        self._arguments = _arguments(terms, [term.cost for term in terms])

    def of(
        self, script: bytes, buckets: Sequence[str], costs: Sequence[int] | None = None
    ) -> bytes:
        """The whole command.

        :param script: ``evalsha`` or ``evaluate`` of a :class:`Script`.
        :param costs: for each term, in place of its own.
        """
        words = [self._begin, script, self._number]
        for bucket, tag in self._keys:
            key = f"{buckets[bucket]}:{tag}".encode()
            words.append(b"$%d\r\n%b\r\n" % (len(key), key))
        words.append(self._arguments if costs is None else _arguments(self._terms, costs))
        return b"".join(words)


def bulk(text: bytes) -> bytes:
    """One word of a command."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _arguments(terms: Iterable[Term], costs: Sequence[int]) -> bytes:
    """What take.lua is to know of each charge."""
    words = []
    for (_, limit, _, enforce, *_), cost in zip(terms, costs, strict=True):
        lifetime_ms = STRATEGIES[limit.strategy].lifetime_ms(limit)
        numbers = (enforce, cost, limit.quota, limit.window_ms, limit.burst, lifetime_ms)
        words.append(bulk(pack(">B5d", *numbers) + limit.strategy.encode() + b"\0"))
    return b"".join(words)


def delete(charges: Sequence[Charge]) -> bytes:
    """The command that forgets the states of these charges."""
    words = [b"*%d\r\n" % (1 + len(charges)), bulk(b"DEL")]
    words += [bulk(f"{charge.bucket}:{charge.limit.tag}".encode()) for charge in charges]
    return b"".join(words)


def decision(
    line: bytes, terms: Terms, buckets: tuple[str, ...], costs: Sequence[int] | None = None
) -> Decision:
    """What a reply of take.lua says.

    :param line: without its line end.
    :raises StorageError: it is no reply to this command.
    """
    try:
        granted, *numbers = map(int, line[1:].split())
    except ValueError:
        granted, numbers = -1, []
    if line[:1] != b"+" or granted not in (0, 1) or len(numbers) != 3 * len(terms):
        raise StorageError(f"not an answer of take.lua: {line[:80]!r}")
    three = iter(numbers)
    measured: list[Measured] = list(zip(three, three, three, strict=True))
    return Decision(granted == 1, terms, buckets, measured, costs)
