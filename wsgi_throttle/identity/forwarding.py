"""Reads forwarding headers, in which each proxy notes who sent it the request.

They are read from the right, where the nearest proxy wrote, because the client itself may have
written the left end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, ip_address
from socket import AF_INET, inet_pton
from typing import Any, TypeAlias

from ..networks import Address, canonical_address

FORWARDING_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
"""The forwarding headers that proxies commonly send."""

UNIX_PEERS = frozenset({"", "localhost", "<local>", "unix", "unix:"})
"""How a peer on a unix socket is named: in REMOTE_ADDR by an empty text (gunicorn, cheroot),
``localhost`` (waitress) or ``<local>`` (Werkzeug), in a forwarding header by ``unix:`` (nginx).
uWSGI names it ``0.0.0.0`` if it speaks HTTP there; that is not in this set, since old versions of
uWSGI name IPv6 peers so too."""

UNKNOWN_PEER = "unknown"
"""How a peer is named of which the server gives no address."""

MAX_PAIRS = 16
"""An element of a Forwarded header with more parameters counts as unreadable."""

NodeReader: TypeAlias = Callable[[str], Iterator["str | None"]]
"""Function of a header's value that gives its nodes, the nearest first, and None for an unreadable
one. A node is a client or proxy that passed the request on (RFC 7239, section 6)."""


def node_reader(header: str) -> NodeReader:
    """The function that reads this forwarding header."""
    return _forwarded_nodes if header.lower() == "forwarded" else _listed_nodes


def _listed_nodes(text: str) -> Iterator[str | None]:
    """The elements of a comma-separated list, from the right. Empty elements are skipped (RFC 9110,
    section 5.6.1). Servers join several lines of one header, in order, by commas. Some proxies put
    an element in quotes, which are removed."""
    while text := text.rstrip(", \t"):
        text, _, node = text.rpartition(",")
        node = node.strip(" \t")
        yield node[1:-1] if len(node) > 1 and node[0] == node[-1] == '"' else node


# A client may have written the left end of a Forwarded header and opened a quote there that it
# never closes; only the right end is from a proxy. So the header is reversed and read from that
# end. In the reversed text, a quoted string ends at the first quote without a backslash after it.
_skip_empty = re.compile(r"[ \t,]*").match
_pair = re.compile(r'[ \t;]*(?:"((?:[^"]|"\\)*)"|([^\s",;=]+))=([^\s",;=]+)[ \t;]*').match
_quoted_pair = re.compile(r"\\(.)", re.DOTALL)


def _forwarded_nodes(text: str) -> Iterator[str | None]:
    """The ``for`` parameter of each element of a Forwarded header (RFC 7239), from the right.

    Gives None for an element with none or with two of them. At the first element that cannot be
    read it gives None and ends. Obfuscated and unknown nodes are given unchanged.
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
    """The address in a node or in REMOTE_ADDR; None if there is none.

    A port, brackets and a zone id are removed. An IPv6 address that contains an IPv4 address
    becomes the latter, see :func:`.canonical_address`.
    """
    try:  # the usual case, fast: inet_pton accepts only the plain spelling of an IPv4 address
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
