"""Sets of IP addresses and networks to look clients up in, and reading these from text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_network,
)
from pathlib import Path
from typing import Any, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# The bits that all addresses of a kind begin with.
_MAPPED = int(IPv6Address("::ffff:0:0")) >> 32
_TRANSLATED = int(IPv6Address("64:ff9b::")) >> 32
_LOCALLY_TRANSLATED = int(IPv6Address("64:ff9b:1::")) >> 80
_TEREDO = int(IPv6Address("2001::")) >> 96
_6TO4 = int(IPv6Address("2002::")) >> 112

_LOW_32 = 0xFFFFFFFF


class EmbeddedAddress(IPv4Address):
    """The IPv4 address of a client whose packets come over IPv6. It is counted and compared as that
    IPv4 address; lists of networks also look for the IPv6 address in which it was written."""

    __slots__ = ("written",)

    def __init__(self, number: int, written: IPv6Address) -> None:
        super().__init__(number)
        self.written = written

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddedAddress, (int(self), self.written)


class Networks:
    """An immutable set of addresses and networks, which any thread may use.

    A look-up is a binary search in sorted ranges, so large sets are hardly slower. An empty set is
    false.

    :param networks: as text, which :func:`parse_network` reads, or parsed.
    :raises ValueError: a text is neither an address nor a network; the message has the remedy.
    """

    def __init__(self, networks: Iterable[str | Network] = ()) -> None:
        networks = [
            parse_network(network) if isinstance(network, str) else network for network in networks
        ]
        self._count = len(networks)
        self._ranges = {
            4: _ranges(net for net in networks if isinstance(net, IPv4Network)),
            6: _ranges(net for net in networks if isinstance(net, IPv6Network)),
        }

    def contains(self, address: Address | None) -> bool:
        """Whether the address is in one of the networks. None, for a client without an address, is
        in no network."""
        if address is None or not self._count:
            return False
        firsts, lasts = self._ranges[address.version]
        number = int(address)
        index = bisect_right(firsts, number) - 1
        if index >= 0 and number <= lasts[index]:
            return True
        return isinstance(address, EmbeddedAddress) and self.contains(address.written)

    def __bool__(self) -> bool:
        return self._count > 0


def _ranges(networks: Iterable[Network]) -> tuple[list[int], list[int]]:
    """The first addresses and the last addresses of all ranges, as numbers, in ascending order."""
    merged = sorted(collapse_addresses(networks))  # type: ignore[type-var]
    return (
        [int(net.network_address) for net in merged],
        [int(net.broadcast_address) for net in merged],
    )


_NO_NETWORK = (
    "not an address or a network: write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32 (host names are "
    "not looked up)"
)

_looks_like_an_address = re.compile(r"[0-9A-Fa-f]*[.:][0-9A-Fa-f.:/]{1,50}").fullmatch


def parse_network(text: str) -> Network:
    """Read one address, or one network in CIDR notation (RFC 4632). IPv4 that is written in one of
    the IPv6 forms of :func:`canonical_address` is read as IPv4.

    :raises ValueError: it is neither, has a zone, or is an address with a prefix length that is no
        network; the message has the remedy.
    """
    if "%" in text:
        raise ValueError(
            f'"{text}" has a zone, and addresses are compared without: write '
            f"{text.partition('%')[0].strip()}"
        )
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        try:
            meant = ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError(f'"{text}" is {_NO_NETWORK}') from error
        address = text.strip().partition("/")[0]
        raise ValueError(
            f'"{text}" is neither one address nor a whole network: write {meant} for the network, '
            f"or {address} for the address"
        ) from error
    return _canonical_network(network)


def canonical_address(address: Address) -> Address:
    """The one form of an address that can be written in several: the IPv4 address that an IPv6
    address holds, or else the address itself.

    IPv6 addresses that hold one are IPv4-mapped (RFC 4291, section 2.5.5.2), translated
    (64:ff9b::/96 of RFC 6052, 64:ff9b:1::/48 of RFC 8215), 6to4 (2002::/16, RFC 3056) or Teredo
    (2001::/32, RFC 4380). Answers to them reach that IPv4 address alone, so nobody can take
    another's; but it has many of them, each of which would be a client of its own.
    """
    if not isinstance(address, IPv6Address):
        return address
    number = int(address)
    if number >> 32 == _MAPPED:
        return IPv4Address(number & _LOW_32)
    inner: int | None = None
    if number >> 32 == _TRANSLATED:
        inner = number & _LOW_32
    elif number >> 80 == _LOCALLY_TRANSLATED:
        inner = _locally_translated(number)
    elif number >> 112 == _6TO4:
        inner = _tunnelled(number >> 80 & _LOW_32)
    elif number >> 96 == _TEREDO:
        inner = _tunnelled(~number & _LOW_32)  # all bits flipped (RFC 4380, section 4)
    return EmbeddedAddress(inner, address) if inner else address


def _locally_translated(number: int) -> int | None:
    """The IPv4 address in an address of 64:ff9b:1::/48, whose operator chose how long the prefix of
    the translation is, and thereby where the IPv4 address stands (RFC 6052, section 2.2).

    It ends at bit 127 for a prefix of 96 bits, 103 for 64, 95 for 56 and 87 for 48, and what
    follows is zero. So the zeros at the end tell the length. An IPv4 address that ends in zeros
    itself may be read for another length: it may share a counter with another client, and never
    has two.
    """
    if number >> 56 & 0xFF:  # bits 64 to 71 are zero in every translated address
        return None
    subnet, middle, end = number >> 64 & 0xFFFF, number >> 32 & 0xFFFFFF, number & _LOW_32
    if end & 0xFFFFFF or not middle:
        return end or subnet << 16  # 96 bits; or 48, and the address ends in .0.0
    if end or not subnet:
        return middle << 8 | end >> 24  # 64 bits
    if middle & 0xFF and subnet & 0xFF:
        return (subnet & 0xFF) << 24 | middle  # 56 bits
    return middle << 8 if middle & 0xFF else subnet << 16 | middle >> 8  # 64 bits; 48


def _tunnelled(number: int) -> int | None:
    """The same IPv4 address; None for one that no tunnel can lead to, since it is none of the
    internet's. Who sends from such a 6to4 or Teredo address is not to pass for a local client or a
    trusted proxy."""
    return None if _NOT_TUNNELLED.contains(IPv4Address(number)) else number


def _canonical_network(network: Network) -> Network:
    """The IPv4 network of an IPv6 one that holds the addresses of no other; every other one as it
    is. A network such as 2002::/16 is left, and means whoever comes over IPv6 from there."""
    if not isinstance(network, IPv6Network):
        return network
    number, length = int(network.network_address), network.prefixlen
    if number >> 112 == _6TO4 and length > 16:
        inner = IPv4Network((number >> 80 & _LOW_32, min(length, 48) - 16))
        return network if _holds_local(inner) else inner
    if length > 96 or (length == 96 and number >> 32 == _MAPPED):
        ends = [
            canonical_address(end) for end in (network.network_address, network.broadcast_address)
        ]
        if all(isinstance(end, IPv4Address) for end in ends):
            low, high = sorted(map(int, ends))
            inner = IPv4Network((low, length - 96), strict=False)
            is_whole = high - low + 1 == inner.num_addresses
            if is_whole and not (number >> 96 == _TEREDO and _holds_local(inner)):
                return inner
    return network


_NOT_OF_THE_INTERNET = [
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"),
    )
]
_NOT_TUNNELLED = Networks(_NOT_OF_THE_INTERNET)


def _holds_local(network: IPv4Network) -> bool:
    return any(network.overlaps(one) for one in _NOT_OF_THE_INTERNET)


def read_networks(path: str | Path) -> list[Network]:
    """Read a UTF-8 file with one address or network on each line. Empty lines, everything after a
    ``#``, and a byte order mark are skipped.

    :raises ValueError: the file cannot be read, or a line is neither an address nor a network; the
        message has its number. It shows a line only if that looks like an address, since the file
        may be the wrong one, with secrets in it.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the list of networks {path}: {error}") from error
    networks = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                networks.append(parse_network(text))
            except ValueError as error:
                shown = error if _looks_like_an_address(text) else f"this is {_NO_NETWORK}"
                raise ValueError(f"{path}:{number}: {shown}") from None
    return networks
