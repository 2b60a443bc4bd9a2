"""The client's address: REMOTE_ADDR, or what trusted proxies say stands behind it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from itertools import islice
from socket import AF_INET, inet_ntoa, inet_pton
from typing import Any, NamedTuple

from ..cache import Bounded
from ..log_once import Notices
from ..networks import Address, Networks, as_client, parse_network
from .text import escaped

UNIX_PEERS = frozenset({"", "localhost", "<local>", "unix", "unix:"})
"""What servers put into REMOTE_ADDR for a client on a unix socket: gunicorn and uWSGI nothing,
waitress ``localhost``, Werkzeug ``<local>``. nginx writes ``unix:`` into forwarding headers."""

FORWARDING_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-IP")

MAX_HOPS = 32
"""Elements of a forwarding header that are looked at, from the right."""

MAX_PAIRS = 16
"""Parameters in one element of a Forwarded header."""

CACHED = 8192
"""Entries of each cache."""

CACHED_LENGTH = 256
"""Characters of a header that is worth keeping; an honest one has one to three addresses."""

WATCHED = 1000
"""For how many requests a local peer is watched for signs of being a proxy."""

IPV4_PREFIXES, IPV6_PREFIXES = (8, 32), (16, 128)
"""The fewest and the most leading bits that can be one client."""

_LOCAL_NETWORKS = """
    10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16
    ::1 fc00::/7 fe80::/10
"""
_LOCAL = Networks(_LOCAL_NETWORKS.split())

is_token = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+").fullmatch
_is_port = re.compile(r":[0-9]{1,5}").fullmatch


@dataclass(frozen=True)
class ClientIP:
    """How to find the client's address, and how much of it is one client.

    :raises ValueError: a value that does not fit; the message has the remedy.
    """

    trusted_proxies: tuple[str, ...] = ("unix",)
    """Whose forwarding header is believed: addresses, networks, and ``unix`` for whoever connects
    over a unix socket. A list replaces the default."""
    header: str = "X-Forwarded-For"
    """The one header that the nearest proxy sets: ``X-Forwarded-For``, ``Forwarded`` (RFC 7239),
    ``X-Real-IP`` or another that holds an address or a list of them."""
    ipv6_prefix: int = 64
    """Leading bits of an IPv6 address that are one client."""
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
        if not is_token(self.header):
            raise ValueError(f'"{self.header}" is not a header name: write X-Forwarded-For')
        for name, bits, least, most in (
            ("ipv6_prefix", self.ipv6_prefix, *IPV6_PREFIXES),
            ("ipv4_prefix", self.ipv4_prefix, *IPV4_PREFIXES),
        ):
            if not least <= bits <= most:
                raise ValueError(f"{name} is {bits}: it can be from {least} to {most}")

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """What can be told to be wrong from the settings alone, each with its remedy."""
        found = [
            f"trusted_proxies: {text} trusts everybody, so that any client can choose its address: "
            "list your proxies alone"
            for text in self.trusted_proxies
            if text != "unix" and parse_network(text).prefixlen == 0
        ]
        if not self.trusted_proxies and self.header != ClientIP.header:
            found.append(f"header: {self.header} is never read: trusted_proxies is empty")
        return tuple(found)


class Client(NamedTuple):
    """Who sent a request."""

    key: str
    """``ip:192.0.2.1`` or ``ip:2001:db8:0:1::/64``."""
    address: Address | None
    """None where a server on a unix socket was told of no address."""


class Clients:
    """Finds the client of each request, and notices settings that cannot be right.

    Any thread may call it. A race loses an entry of a cache, or says something twice.
    """

    def __init__(self, settings: ClientIP) -> None:
        self._settings = settings
        self._header = environ_name(settings.header)
        self._nodes = _forwarded if settings.header.lower() == "forwarded" else _listed
        self._trusted = Networks(text for text in settings.trusted_proxies if text != "unix")
        self._unix_is_trusted = "unix" in settings.trusted_proxies
        self._signs = {environ_name(name): name for name in (*FORWARDING_HEADERS, settings.header)}
        self._untrusted: Bounded[str, Client] = Bounded(CACHED)
        self._proxies: Bounded[str, Client] = Bounded(CACHED)
        self._forwarded: Bounded[str, Client | None] = Bounded(CACHED)
        self._watched: Bounded[str, int] = Bounded(CACHED)
        self._notice = Notices()

    def key(self, environ: dict[str, Any], _: Mapping[str, str] | None = None) -> str:
        """The key of this request's client: of ``type:value``, type is ``ip``."""
        client = self._untrusted.get(environ.get("REMOTE_ADDR"))  # type: ignore[arg-type]
        return client[0] if client else self.find(environ)[0]

    def address(self, environ: dict[str, Any]) -> Address | None:
        """The whole address, for lists of networks."""
        client = self._untrusted.get(environ.get("REMOTE_ADDR"))  # type: ignore[arg-type]
        return client[1] if client else self.find(environ)[1]

    def find(self, environ: dict[str, Any]) -> Client:
        """The right-most address of the forwarding header that is no trusted proxy; the peer itself
        where it is not trusted. What cannot be read, or is not there, counts as the proxy that
        handed it on, so that garbage never makes a new client."""
        peer = environ.get("REMOTE_ADDR") or ""
        proxy = self._proxies.get(peer)
        if proxy is None:
            client = self._untrusted.get(peer)
            if client is not None:
                return client
            client, is_trusted = self._meet(peer)
            if not is_trusted:
                self._watch(peer, client, environ)
                return client
            proxy = self._proxies.keep(peer, client)
        text = environ.get(self._header)
        if text is None:
            self._miss(peer, environ)
            return proxy
        try:
            behind = self._forwarded[text]
        except KeyError:
            behind = self._follow(text)
            if len(text) <= CACHED_LENGTH:
                self._forwarded.keep(text, behind)
        return behind or proxy

    def _meet(self, peer: str) -> tuple[Client, bool]:
        for doubt in self._settings.doubts:
            self._notice(doubt, logging.WARNING, "client_ip: %s", doubt)
        if peer in UNIX_PEERS:
            if self._unix_is_trusted:
                self._notice(
                    "unix",
                    logging.INFO,
                    "requests come over a unix socket, and %s is believed there: only a local "
                    "process can connect to it (client_ip: trusted_proxies)",
                    self._settings.header,
                )
            return Client("ip:unix", None), self._unix_is_trusted
        address = parse_address(peer)
        if address is None:
            return Client(f"ip:{escaped(peer)}", None), False
        return self._client(address), self._trusted.contains(address)

    def _follow(self, text: str) -> Client | None:
        farthest = None
        nodes = islice(self._nodes(text), MAX_HOPS)
        for hop, node in enumerate(nodes):
            if node == "unix:" and self._unix_is_trusted:
                continue
            address = None if node is None else parse_address(node)
            if address is None:
                break
            farthest = address
            if not self._trusted.contains(address):
                if _LOCAL.contains(address) and next(nodes, None) is not None:
                    self._notice(
                        "hop",
                        logging.WARNING,
                        "%s names %s, which is local and not trusted, as the client of hop %d: if "
                        "it is a proxy of yours, all behind it count as one client until you add "
                        "it to client_ip: {trusted_proxies: [%s]}",
                        self._settings.header,
                        address,
                        hop + 1,
                        address,
                    )
                break
        return None if farthest is None else self._client(farthest)

    def _client(self, address: Address) -> Client:
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

    def _watch(self, peer: str, client: Client, environ: dict[str, Any]) -> None:
        """Notice a proxy that is not trusted. Peers on the internet go by at their first request;
        a local one is looked at longer, since its first may be a health check."""
        is_local = client.address is None or _LOCAL.contains(client.address)
        if not self._signs.keys().isdisjoint(environ.keys()):
            sign = next(name for key, name in self._signs.items() if key in environ)
            name = "unix" if peer in UNIX_PEERS else client.address or escaped(peer)
            self._notice(
                f"sign of a proxy, local: {is_local}",
                logging.WARNING,
                "%s sends %s and is not a trusted proxy, so the header is ignored and %s is the "
                "client: if it is a proxy of yours, all behind it count as one client until you "
                "write client_ip: {trusted_proxies: [%s], header: %s}",
                name,
                sign,
                name,
                name,
                sign,
            )
        elif is_local:
            seen = self._watched.keep(peer, self._watched.get(peer, 0) + 1)
            if seen < WATCHED:
                return
            if len(self._watched) == 1 and not self._untrusted and not self._proxies:
                self._notice(
                    "alone",
                    logging.WARNING,
                    "all of the first requests, %d, came from %s, a local address, without a "
                    "forwarding header: if it is a proxy of yours, all behind it count as one "
                    "client; let it set %s and write client_ip: {trusted_proxies: [%s]}",
                    seen,
                    client.address or "a unix socket",
                    self._settings.header,
                    client.address or "unix",
                )
        self._untrusted.keep(peer, client)

    def _miss(self, peer: str, environ: dict[str, Any]) -> None:
        other = next((name for key, name in self._signs.items() if key in environ), None)
        nginx = (
            " (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for)"
            if self._settings.header.lower() == "x-forwarded-for"
            else ""
        )
        remedy = (
            f"it sends {other}: write client_ip: {{header: {other}}}"
            if other
            else f"let it set the header{nginx}, or ignore this if it was a health check"
        )
        self._notice(
            f"missed header, other: {other}",
            logging.WARNING,
            "the trusted proxy at %s sent no %s, so that all behind it count as one client: %s",
            escaped(peer) if peer not in UNIX_PEERS else "the unix socket",
            self._settings.header,
            remedy,
        )


def environ_name(header: str) -> str:
    """Where WSGI keeps a request header."""
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def parse_address(text: str) -> Address | None:
    """The address in an element of a forwarding header or in REMOTE_ADDR, which may have a port,
    brackets or a zone id; None if there is none. Mapped and translated IPv4 is IPv4."""
    try:  # which only takes the one canonical spelling of IPv4, and that of nearly all clients
        return IPv4Address(inet_pton(AF_INET, text))
    except (OSError, ValueError):
        pass
    host = text.strip(" \t")
    if len(host) > 100:
        return None
    if host.startswith("["):
        host, bracket, port = host[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif host.count(":") == 1:
        host, colon, port = host.partition(":")
        if not _is_port(colon + port):
            return None
    try:
        return as_client(ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def _listed(text: str) -> Iterator[str | None]:
    """The elements of a comma-separated header from the right; empty ones are none (RFC 9110,
    section 5.6.1). Several header lines are one by commas, in their order."""
    while text := text.rstrip(", \t"):
        text, _, node = text.rpartition(",")
        yield node.strip(" \t")


# What a proxy appended stands right, and what a client wrote left of it may hold an opening quote.
# So Forwarded is read backwards: there a quoted string ends at the first quote that no backslash
# follows, whatever comes after.
_skip_empty = re.compile(r"[ \t,]*").match
_pair = re.compile(r'[ \t;]*(?:"((?:[^"]|"\\)*)"|([^\s",;=]+))=([^\s",;=]+)[ \t;]*').match
_quoted_pair = re.compile(r"\\(.)", re.DOTALL)


def _forwarded(text: str) -> Iterator[str | None]:
    """The ``for`` of each element of a Forwarded header (RFC 7239) from the right; None for an
    element without, or with two, and for all that cannot be read. Obfuscated and unknown
    identifiers are handed on as they stand, and are no addresses."""
    backwards = text[::-1]
    position = 0
    while (position := _skip_empty(backwards, position).end()) < len(backwards):  # type: ignore[union-attr]
        named = []
        for _ in range(MAX_PAIRS):
            pair = _pair(backwards, position)
            if pair is None:
                break
            position = pair.end()
            quoted, token, name = pair.groups()
            if name[::-1].lower() == "for":
                node = (token if quoted is None else quoted)[::-1]
                named.append(_quoted_pair.sub(r"\1", node))
        if position < len(backwards) and backwards[position] != ",":
            yield None
            return
        yield named[0] if len(named) == 1 else None
