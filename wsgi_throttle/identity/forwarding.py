"""Forwarding headers, in which proxies write for whom they forward a request; read from the right,
where the nearest proxy writes, since a client may have written the left."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, ip_address
from socket import AF_INET, inet_pton
from typing import Any, TypeAlias

from ..networks import Address, canonical_address

FORWARDING_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
"""The ones that proxies are known to send."""

UNIX_PEERS = frozenset({"", "localhost", "<local>", "unix", "unix:"})
"""What stands for a client on a unix socket. In REMOTE_ADDR: an empty text (gunicorn, cheroot),
``localhost`` (waitress) or ``<local>`` (Werkzeug); in a forwarding header, and in the REMOTE_ADDR
that it hands to uWSGI, ``unix:`` (nginx). No REMOTE_ADDR at all is something else, but for gevent,
see :func:`peer_of`. uWSGI's ``0.0.0.0`` is not here, since IPv6 peers are that too in old versions
of it."""

UNKNOWN_PEER = "unknown"
"""What a peer is called of which the server gives no address."""

MAX_PAIRS = 16
"""Parameters in one element of a Forwarded header; an element with more is unreadable."""

NodeReader: TypeAlias = Callable[[str], Iterator["str | None"]]
"""From the value of a header to its nodes, the nearest first; None for an unreadable node. A node
is whoever sent the request to the next one (RFC 7239, section 6)."""


def node_reader(header: str) -> NodeReader:
    """The function that reads this forwarding header."""
    return _forwarded_nodes if header.lower() == "forwarded" else _listed_nodes


def _listed_nodes(text: str) -> Iterator[str | None]:
    """The elements of a comma-separated list, from the right. Empty elements do not count (RFC
    9110, section 5.6.1); several header lines arrive as one, joined by commas in their order. Some
    proxies write quotes around an element."""
    while text := text.rstrip(", \t"):
        text, _, node = text.rpartition(",")
        node = node.strip(" \t")
        yield node[1:-1] if len(node) > 1 and node[0] == node[-1] == '"' else node


# The right end of a Forwarded header is from a proxy, and the left end may be from a client, who
# may have opened a quote there and not closed it. So the text is reversed and read from its end:
# in it a quoted string ends at the first quote that is not followed by a backslash.
_skip_empty = re.compile(r"[ \t,]*").match
_pair = re.compile(r'[ \t;]*(?:"((?:[^"]|"\\)*)"|([^\s",;=]+))=([^\s",;=]+)[ \t;]*').match
_quoted_pair = re.compile(r"\\(.)", re.DOTALL)


def _forwarded_nodes(text: str) -> Iterator[str | None]:
    """The ``for`` parameter of each element of a Forwarded header (RFC 7239), from the right.

    None for an element without it, or with two of them. At the first element that cannot be read
    it gives None and ends. Obfuscated and unknown nodes are given as they stand.
    """
    backwards = text[::-1]
    position = 0
    while (position := _skip_empty(backwards, position).end()) < len(backwards):  # type: ignore[union-attr]
        nodes = []
        for _ in range(MAX_PAIRS):
            pair = _pair(backwards, position)
            if pair is None:
                break
            position = pair.end()
            quoted, token, name = pair.groups()
            if name[::-1].lower() == "for":
                node = (token if quoted is None else quoted)[::-1]
                nodes.append(_quoted_pair.sub(r"\1", node))
        if position < len(backwards) and backwards[position] != ",":
            yield None
            return
        yield nodes[0] if len(nodes) == 1 else None


def peer_of(environ: Mapping[str, Any]) -> str:
    """REMOTE_ADDR; for a server that gives none, UNKNOWN_PEER.

    gevent's own server (``gunicorn -k gevent_pywsgi`` too) gives one for every peer but those on a
    unix socket, which are an empty text here as with other servers.
    """
    peer = environ.get("REMOTE_ADDR")
    if isinstance(peer, str):
        return peer
    return "" if str(environ.get("SERVER_SOFTWARE")).startswith("gevent/") else UNKNOWN_PEER


_is_port = re.compile(r":([0-9]{1,5}|_[A-Za-z0-9._-]+)").fullmatch
"""A port, or a name in place of one (RFC 7239, section 6)."""

MAX_ADDRESS_LENGTH = 100
"""Characters of an address with its zone id; a longer text is none."""


def parse_address(text: str) -> Address | None:
    """The address in a node or in REMOTE_ADDR, or None if there is none.

    It may have a port, brackets or a zone id, which are left out. An IPv6 address that holds an
    IPv4 address is the IPv4 address, see :func:`.canonical_address`.
    """
    try:  # the usual spelling first: inet_pton takes no other one of an IPv4 address
        return IPv4Address(inet_pton(AF_INET, text))
    except (OSError, ValueError):
        pass
    host = text.strip(" \t")
    if host.startswith("["):
        host, bracket, port = host[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif host.count(":") == 1:
        host, colon, port = host.partition(":")
        if not _is_port(colon + port):
            return None
    if len(host) > MAX_ADDRESS_LENGTH:
        return None
    try:
        return canonical_address(ip_address(host.partition("%")[0]))
    except ValueError:
        return None
