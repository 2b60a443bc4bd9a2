"""Sets of IP addresses and networks to look clients up in, and reading these from text."""

from __future__ import annotations

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
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_MAPPED = int(IPv6Address("::ffff:0:0"))
_NAT64 = int(IPv6Address("64:ff9b::"))


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
        return index >= 0 and number <= lasts[index]

    def __bool__(self) -> bool:
        return self._count > 0


def _ranges(networks: Iterable[Network]) -> tuple[list[int], list[int]]:
    """The first addresses and the last addresses of all ranges, as numbers, in ascending order."""
    merged = sorted(collapse_addresses(networks))  # type: ignore[type-var]
    return (
        [int(net.network_address) for net in merged],
        [int(net.broadcast_address) for net in merged],
    )


def parse_network(text: str) -> Network:
    """Read one address, or one network in CIDR notation (RFC 4632). IPv4 that is written in one of
    the IPv6 forms of :func:`canonical_address` is read as IPv4.

    :raises ValueError: it is neither, or an address with a prefix length that is no network; the
        message has the remedy.
    """
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        try:
            meant = ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError(
                f'"{text}" is not an address or a network: write 192.0.2.7, 192.0.2.0/24 or '
                "2001:db8::/32 (host names are not looked up)"
            ) from error
        address = text.strip().partition("/")[0]
        raise ValueError(
            f'"{text}" is neither one address nor a whole network: write {meant} for the network, '
            f"or {address} for the address"
        ) from error
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        inner = canonical_address(network.network_address)
        if isinstance(inner, IPv4Address):
            return IPv4Network((int(inner), network.prefixlen - 96))
    return network


def canonical_address(address: Address) -> Address:
    """The one form of an address that can be written in several: IPv4, if it is an IPv4-mapped IPv6
    address (RFC 4291, section 2.5.5.2) or an IPv4 address translated to IPv6 (RFC 6052, section
    2.1: 64:ff9b::/96); otherwise the address itself."""
    if isinstance(address, IPv6Address):
        number = int(address)
        if number >> 32 in (_MAPPED >> 32, _NAT64 >> 32):
            return IPv4Address(number & 0xFFFFFFFF)
    return address


def read_networks(path: str | Path) -> list[Network]:
    """Read a UTF-8 file with one address or network on each line. Empty lines, and everything after
    a ``#``, are skipped.

    :raises ValueError: the file cannot be read, or a line is neither an address nor a network; the
        message has its number.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the list of networks {path}: {error}") from error
    networks = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                networks.append(parse_network(text))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
    return networks
