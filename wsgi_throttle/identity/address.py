"""The client's address: REMOTE_ADDR, or the address that trusted proxies forward for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import islice
from socket import inet_ntoa
from typing import Any, NamedTuple

from ..cache import Bounded
from ..networks import Address, Networks, parse_network
from .forwarding import UNIX_PEERS, node_reader, parse_address, peer_of
from .proxies import ProxyAdvice, is_local
from .text import environ_name, escaped, is_header_name

MAX_HOPS = 32
"""How many nodes of a forwarding header are read, from the right."""

MAX_CACHED = 8192
"""Entries of each cache of clients."""

MAX_CACHED_LENGTH = 256
"""A longer header, in characters, is not cached; a usual one has one to three addresses."""

IPV4_PREFIXES, IPV6_PREFIXES = (8, 32), (16, 128)
"""The bounds of ``ipv4_prefix`` and ``ipv6_prefix``, in bits."""


@dataclass(frozen=True)
class ClientIP:
    """How to find the client's address, and which addresses count as one client. Immutable.

    :raises ValueError: a value that does not fit; the message has the remedy.
    """

    trusted_proxies: tuple[str, ...] = ("unix",)
    """The proxies whose forwarding header is believed: addresses, networks, and ``unix`` for all
    that connect over a unix socket."""
    hops: int | None = None
    """In place of ``trusted_proxies``: how many proxies every request comes through. They are
    believed whatever their addresses: the client is the node of the header with this number,
    counted from 1 at the right. Safe only if nobody can connect except through all of them, since
    anybody else can choose an address."""
    header: str = "X-Forwarded-For"
    """The forwarding header that the nearest proxy sets: ``X-Forwarded-For``, ``Forwarded`` (RFC
    7239), ``X-Real-IP`` or another that holds an address or a list of addresses."""
    ipv6_prefix: int = 64
    """IPv6 addresses that agree in this many leading bits count as one client. A provider gives a
    customer at least a /64, so single addresses would let one client be many."""
    ipv4_prefix: int = 32
    """The same for IPv4."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trusted_proxies", tuple(self.trusted_proxies))
        for text in self.trusted_proxies:
            if text != "unix":
                try:
                    parse_network(text)
                except ValueError as error:
                    raise ValueError(f'{error}, or "unix" for a unix socket') from None
        if self.hops is not None:
            if not 1 <= self.hops <= MAX_HOPS:
                raise ValueError(f"hops is {self.hops}: it can be from 1 to {MAX_HOPS}")
            if self.trusted_proxies != ClientIP.trusted_proxies:
                raise ValueError(
                    "hops trusts proxies whatever their addresses, so that trusted_proxies means "
                    "nothing beside it: leave one of them out (trusted_proxies is safer)"
                )
        if not is_header_name(self.header):
            raise ValueError(f'"{self.header}" is not a header name: write X-Forwarded-For')
        for name, bits, minimum, maximum in (
            ("ipv6_prefix", self.ipv6_prefix, *IPV6_PREFIXES),
            ("ipv4_prefix", self.ipv4_prefix, *IPV4_PREFIXES),
        ):
            if not minimum <= bits <= maximum:
                raise ValueError(f"{name} is {bits}: it can be from {minimum} to {maximum}")

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but surely a mistake in these settings, each with its remedy."""
        found = [
            f"trusted_proxies: {text} trusts everybody, so that any client can choose its address: "
            "list your proxies alone"
            for text in self.trusted_proxies
            if text != "unix" and parse_network(text).prefixlen == 0
        ]
        if self.hops is not None and self.hops > 1 and self.header.lower() == "x-real-ip":
            found.append("hops: X-Real-IP holds one address, so no other is found: write hops: 1")
        if not self.trusted_proxies and self.header != ClientIP.header:
            found.append(f"header: {self.header} is never read: trusted_proxies is empty")
        return tuple(found)


class Client(NamedTuple):
    """Who sent a request."""

    key: str
    """``ip:192.0.2.1`` or ``ip:2001:db8:0:1::/64``."""
    address: Address | None
    """The whole address; None on a unix socket, and where REMOTE_ADDR is missing or not an
    address."""


class Clients:
    """Finds the client of each request, and logs advice where the settings are probably wrong.

    Any thread may call it: two that race may both compute the same client, or both log. It may be
    made before a fork; each process then has caches of its own.
    """

    def __init__(self, settings: ClientIP) -> None:
        self._settings = settings
        self._header = environ_name(settings.header)
        self._read_nodes = node_reader(settings.header)
        self._trusted = Networks(text for text in settings.trusted_proxies if text != "unix")
        self._unix_is_trusted = "unix" in settings.trusted_proxies
        self._advice = ProxyAdvice(settings.header, settings.hops)
        self._client_in = self._client_behind if settings.hops is None else self._client_at_hop
        # Peers by their REMOTE_ADDR: those that are not trusted, and the trusted proxies.
        self._untrusted: Bounded[str, Client] = Bounded(MAX_CACHED)
        self._proxies: Bounded[str, Client] = Bounded(MAX_CACHED)
        # By the value of the forwarding header; None where it names no address.
        self._forwarded: Bounded[str, Client | None] = Bounded(MAX_CACHED)

    def key(self, environ: dict[str, Any], _: Mapping[str, str] | None = None) -> str:
        """The key of the client that sent this request: ``ip:`` and its address or network."""
        client = self._untrusted.get(environ.get("REMOTE_ADDR"))  # type: ignore[arg-type]
        return client[0] if client else self.find(environ)[0]

    def address(self, environ: dict[str, Any]) -> Address | None:
        """The client's whole address, which the prefixes do not shorten, for lists of networks."""
        client = self._untrusted.get(environ.get("REMOTE_ADDR"))  # type: ignore[arg-type]
        return client[1] if client else self.find(environ)[1]

    def find(self, environ: dict[str, Any]) -> Client:
        """The client of this request: the peer if that is not a trusted proxy, and otherwise the
        right-most address of its forwarding header that is not a trusted proxy.

        Where that header is missing or unreadable, the client is the proxy that sent the request,
        so that nobody becomes a new client by sending garbage. All peers without an address are one
        client, ``ip:unknown``.
        """
        peer = environ.get("REMOTE_ADDR")
        if peer.__class__ is not str:
            peer = peer_of(environ)
        proxy = self._proxies.get(peer)
        if proxy is None:
            client = self._untrusted.get(peer)
            if client is not None:
                return client
            client, is_trusted = self._look_up_peer(peer, environ)
            if not is_trusted:
                if self._advice.untrusted_peer(
                    peer,
                    client.address,
                    environ,
                    are_others_known=bool(self._untrusted or self._proxies),
                ):
                    self._untrusted.keep(peer, client)
                return client
            proxy = self._proxies.keep(peer, client)
        text = environ.get(self._header)
        if text is None:
            self._advice.missing_header(peer, environ)
            return proxy
        try:
            behind = self._forwarded[text]
        except KeyError:
            behind = self._client_in(text)
            if len(text) <= MAX_CACHED_LENGTH:
                self._forwarded.keep(text, behind)
        return behind or proxy

    def _look_up_peer(self, peer: str, environ: dict[str, Any]) -> tuple[Client, bool]:
        """The peer itself as a client, and whether it is a trusted proxy."""
        self._advice.settings(self._settings.warnings)
        client, is_trusted = self._recognize(peer)
        if self._settings.hops is not None:
            is_trusted = True
        elif is_trusted and client.address is None:
            self._advice.unix_socket_is_trusted()
        if is_trusted:
            self._advice.merged_names(environ)
        return client, is_trusted

    def _recognize(self, peer: str) -> tuple[Client, bool]:
        """The same, whatever ``hops`` says."""
        if peer in UNIX_PEERS:
            return Client("ip:unix", None), self._unix_is_trusted
        address = parse_address(peer)
        if address is None:
            return Client(f"ip:{escaped(peer)}", None), False
        return self._client(address), self._trusted.contains(address)

    def _client_behind(self, text: str) -> Client | None:
        """The client that the value of a forwarding header names, or None if it names no address.
        Where all nodes are trusted proxies, it is the left-most of them."""
        farthest = None
        nodes = islice(self._read_nodes(text), MAX_HOPS)
        for hop, node in enumerate(nodes, 1):
            if node == "unix:" and self._unix_is_trusted:
                continue
            address = None if node is None else parse_address(node)
            if address is None:
                break
            farthest = address
            if not self._trusted.contains(address):
                if is_local(address) and next(nodes, None) is not None:
                    self._advice.local_client(address, hop)
                break
        return None if farthest is None else self._client(farthest)

    def _client_at_hop(self, text: str) -> Client | None:
        """The client where its place in the header is known. None for a header with fewer nodes,
        which did not come through all of the proxies."""
        hops = self._settings.hops or 1
        nodes = list(islice(self._read_nodes(text), hops + 1))
        if len(nodes) < hops:
            self._advice.too_few_hops(len(nodes))
            return None
        node = nodes[hops - 1]
        address = None if node is None else parse_address(node)
        if address is None:
            return None
        if is_local(address) and len(nodes) > hops:
            self._advice.local_client(address, hops)
        return self._client(address)

    def _client(self, address: Address) -> Client:
        """The client that this address is part of, by the prefixes of the settings."""
        network: IPv4Network | IPv6Network
        if isinstance(address, IPv4Address):
            if self._settings.ipv4_prefix == 32:
                return Client(f"ip:{inet_ntoa(address.packed)}", address)
            network = IPv4Network((int(address), self._settings.ipv4_prefix), strict=False)
        else:
            if self._settings.ipv6_prefix == 128:
                return Client(f"ip:{address}", address)
            network = IPv6Network((int(address), self._settings.ipv6_prefix), strict=False)
        return Client(f"ip:{network}", address)
