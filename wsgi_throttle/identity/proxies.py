"""What the log advises about proxies: each setting that takes many clients for one, or that lets a
client choose its address, can be recognised by the requests that come."""

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
"""So many requests of a local peer are looked at, until it is taken for an ordinary client."""

MAX_WATCHED_PEERS = 8192

_LOCAL_NETWORKS = """
    10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16
    ::1 fc00::/7 fe80::/10
"""
_LOCAL = Networks(_LOCAL_NETWORKS.split())


def is_local(address: Address | None) -> bool:
    """Whether the address cannot come from the internet, as that of a proxy of one's own; None is
    a client on a unix socket."""
    return address is None or _LOCAL.contains(address)


class ProxyAdvice:
    """Logs what is probably wrong with ``client_ip``, and what to write instead.

    Each advice is logged once. What a client sent is escaped or not shown. Any thread may use it.

    :param header: the forwarding header of the settings.
    """

    def __init__(self, header: str) -> None:
        self._header = header
        self._names = {environ_name(name): name for name in (*FORWARDING_HEADERS, header)}
        self._requests: Bounded[str, int] = Bounded(MAX_WATCHED_PEERS)
        self._log_once = LogOnce()

    def settings(self, warnings: Iterable[str]) -> None:
        """Log what is wrong with the settings whatever requests come."""
        for warning in warnings:
            self._log_once(warning, logging.WARNING, "client_ip: %s", warning)

    def unix_socket_is_trusted(self) -> None:
        """A request came over a unix socket, and its forwarding header is believed."""
        self._log_once(
            "unix socket",
            logging.INFO,
            "requests come over a unix socket, and %s is believed there: only a local process can "
            "connect to it (client_ip: trusted_proxies)",
            self._header,
        )

    def local_client(self, address: Address, hop: int) -> None:
        """The client that the header names is local, and the header names another one behind it.

        :param hop: which node from the right it is, from 1.
        """
        self._log_once(
            "local client",
            logging.WARNING,
            "%s names %s, which is local and not trusted, as the client of hop %d: if it is a "
            "proxy of yours, all behind it count as one client until you add it to "
            "client_ip: {trusted_proxies: [%s]}",
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
        """A request came from a peer that is not trusted. It may be a proxy nevertheless: it sends
        a forwarding header, or all requests come from it.

        :param address: the peer's; None for one on a unix socket or of an unknown kind.
        :param are_others_known: requests came from peers that need not be asked about any more.
        :return: whether this peer need not be asked about again. One on the internet is done with
            its first request; a local one is watched, since its first may be a health check.
        """
        name = "unix" if peer in UNIX_PEERS else address or escaped(peer)
        header = self._forwarding_header(environ)
        if header is not None:
            self._log_once(
                ("untrusted proxy", is_local(address)),  # so that no stranger hides a local proxy
                logging.WARNING,
                "%s sends %s and is not a trusted proxy, so the header is ignored and %s is the "
                "client: if it is a proxy of yours, all behind it count as one client until you "
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
                "all of the first requests, %d, came from %s, a local address, without a "
                "forwarding header: if it is a proxy of yours, all behind it count as one client; "
                "let it set %s and write client_ip: {trusted_proxies: [%s]}",
                requests,
                address or "a unix socket",
                self._header,
                address or "unix",
            )
        return True

    def missing_header(self, peer: str, environ: dict[str, Any]) -> None:
        """A trusted proxy sent a request without the forwarding header."""
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
            "the trusted proxy at %s sent no %s, so that all behind it count as one client: %s",
            escaped(peer) if peer not in UNIX_PEERS else "the unix socket",
            self._header,
            remedy,
        )

    def _forwarding_header(self, environ: dict[str, Any]) -> str | None:
        """The name of a forwarding header that the request has."""
        return next((name for key, name in self._names.items() if key in environ), None)
