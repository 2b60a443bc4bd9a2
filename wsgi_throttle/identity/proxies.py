"""Advice in the log about proxies.

Wrong settings make many clients count as one, or let a client choose its address. Most of them can
be recognised by the requests that come in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ..cache import Bounded
from ..log_once import LogOnce
from ..networks import Address, Networks
from .forwarding import FORWARDING_HEADERS, UNIX_PEERS
from .text import environ_name, escaped

WATCHED_REQUESTS = 1000
"""How many requests of a local peer are examined before it is taken for an ordinary client."""

MAX_WATCHED_PEERS = 8192
"""How many local peers are examined at once; one more, and all of them start again."""

_LOCAL_NETWORKS = """
    10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16
    ::1 fc00::/7 fe80::/10
"""
_LOCAL = Networks(_LOCAL_NETWORKS.split())


def is_local(address: Address | None) -> bool:
    """Whether the address is private, so that it may be one of the operator's own proxies and
    cannot come from the internet. None, a peer on a unix socket, is local."""
    return address is None or _LOCAL.contains(address)


class ProxyAdvice:
    """Logs what is probably wrong with ``client_ip``, and what to write instead.

    Each piece of advice is logged once in a process. What a client sent is escaped or left out. Any
    thread may use it.

    :param header: the forwarding header of the settings.
    """

    def __init__(self, header: str) -> None:
        self._header = header
        self._names = {environ_name(name): name for name in (*FORWARDING_HEADERS, header)}
        self._requests: Bounded[str, int] = Bounded(MAX_WATCHED_PEERS)
        self._log_once = LogOnce()

    def settings(self, warnings: Iterable[str]) -> None:
        """Log what is wrong with the settings themselves."""
        for warning in warnings:
            self._log_once(warning, logging.WARNING, "client_ip: %s", warning)

    def unix_socket_is_trusted(self) -> None:
        """Call this when a request comes over a unix socket that is trusted."""
        self._log_once(
            "unix socket",
            logging.INFO,
            "requests come over a unix socket, and %s is believed there: only a local process can "
            "connect to it (client_ip: trusted_proxies)",
            self._header,
        )

    def local_client(self, address: Address, hop: int) -> None:
        """Call this when the client that a header names is local, and the header has another node
        to the left of it, for which it may be a proxy.

        :param hop: the number of the client's node, counted from 1 at the right.
        """
        self._log_once(
            "local client",
            logging.WARNING,
            "%s names %s, which is local and not trusted, as the client (number %d from the "
            "right): if it is a proxy of yours, all clients behind it count as one until you add "
            "it to client_ip: {trusted_proxies: [%s]}",
            self._header,
            address,
            hop,
            address,
        )

    def untrusted_peer(
        self,
        peer: str,
        address: Address | None,
        environ: dict[str, Any],
        *,
        are_others_known: bool,
    ) -> bool:
        """Call this for a request from a peer that is not trusted. The peer is probably a proxy if
        it sends a forwarding header, or if all requests come from it.

        :param address: the peer's; None on a unix socket, and for text that is not an address.
        :param are_others_known: whether other peers have sent requests and need no more calls.
        :return: whether this peer needs no more calls. For a peer on the internet one call is
            enough. A local peer is watched for longer, as its first requests may be health checks.
        """
        name = "unix" if peer in UNIX_PEERS else address or escaped(peer)
        header = self._forwarding_header(environ)
        if header is not None:
            self._log_once(
                (
                    "untrusted proxy",
                    is_local(address),
                ),  # a stranger must not use up a proxy's message
                logging.WARNING,
                "%s sends %s and is not a trusted proxy, so the header is ignored and %s is the "
                "client: if it is a proxy of yours, all clients behind it count as one until you "
                "write client_ip: {trusted_proxies: [%s], header: %s}",
                name,
                header,
                name,
                name,
                header,
            )
            return True
        if not is_local(address):
            return True
        requests = self._requests.keep(peer, self._requests.get(peer, 0) + 1)
        if requests < WATCHED_REQUESTS:
            return False
        if len(self._requests) == 1 and not are_others_known:
            self._log_once(
                "only peer",
                logging.WARNING,
                "all of the first %d requests came from %s, which is local, without a forwarding "
                "header: if it is a proxy of yours, all clients behind it count as one; let it set "
                "%s and write client_ip: {trusted_proxies: [%s]}",
                requests,
                address or "a unix socket",
                self._header,
                address or "unix",
            )
        return True

    def missing_header(self, peer: str, environ: dict[str, Any]) -> None:
        """Call this when a trusted proxy sends a request without the forwarding header."""
        other = self._forwarding_header(environ)
        nginx = (
            " (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for)"
            if self._header.lower() == "x-forwarded-for"
            else ""
        )
        remedy = (
            f"it sends {other}: write client_ip: {{header: {other}}}"
            if other
            else f"let it set the header{nginx}, or ignore this if it was a health check"
        )
        self._log_once(
            ("missing header", other),
            logging.WARNING,
            "the trusted proxy at %s sent no %s, so that all clients behind it count as one: %s",
            escaped(peer) if peer not in UNIX_PEERS else "the unix socket",
            self._header,
            remedy,
        )

    def _forwarding_header(self, environ: dict[str, Any]) -> str | None:
        """The name of a forwarding header that the request has; None if it has none."""
        return next((name for key, name in self._names.items() if key in environ), None)
