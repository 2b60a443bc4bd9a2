"""Advice in the log about proxies.

Wrong settings make many clients count as one, or let a client choose its address. Most of them can
be recognised by the requests that come in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
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

_PROXY_FIX = "werkzeug.proxy_fix.orig"
"""In the environ where Werkzeug's ProxyFix has put the visitor's address into REMOTE_ADDR."""

_WAITRESS = "waitress.client_disconnected"
"""In the environ of every request that waitress serves."""

_MERGING_SERVERS = {"WSGIServer/": "wsgiref", "Cheroot/": "cheroot", "CherryPy/": "CherryPy"}
"""Servers that put X_Forwarded_For and X-Forwarded-For into one variable, by how their
SERVER_SOFTWARE begins. uWSGI is another; it has none."""


def is_local(address: Address | None) -> bool:
    """Whether the address is private, so that it may be one of the operator's own proxies and
    cannot come from the internet. None, a peer on a unix socket, is local."""
    return address is None or _LOCAL.contains(address)


class ProxyAdvice:
    """Logs what is probably wrong with ``client_ip``, and what to write instead.

    Each piece of advice is logged once in a process. What a client sent is escaped or left out. Any
    thread may use it.

    :param header: the forwarding header of the settings.
    :param hops: how many proxies are trusted whatever their addresses, in the settings; None where
        these have a list of proxies.
    """

    def __init__(self, header: str, hops: int | None = None) -> None:
        self._header = header
        self._hops = hops
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

    def merged_names(self, environ: Mapping[str, Any]) -> None:
        """A trusted proxy is served by a server in whose environ a header that a client spells
        with underscores is, or joins, the one that the proxy set."""
        if "uwsgi.version" in environ:
            server: str | None = "uWSGI"
        else:
            software = str(environ.get("SERVER_SOFTWARE"))
            server = next(
                (name for start, name in _MERGING_SERVERS.items() if software.startswith(start)),
                None,
            )
        if server is None:
            return
        self._log_once(
            "merged names",
            logging.WARNING,
            "%s takes %s for %s, so that a client that sends it can choose its address: let the "
            "proxy drop request headers with underscores in their names (nginx does by itself)",
            server,
            self._header.replace("-", "_"),
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
            "right): if it is a proxy of yours, all clients behind it count as one until you %s",
            self._header,
            address,
            hop,
            f"add it to client_ip: {{trusted_proxies: [{address}]}}"
            if self._hops is None
            else f"write client_ip: {{hops: {hop + 1}}}",
        )

    def too_few_hops(self, found: int) -> None:
        """The header has fewer nodes than there are proxies."""
        self._log_once(
            "too few hops",
            logging.WARNING,
            "%s has %d addresses where client_ip: {hops: %d} says %d, so it is ignored, and its "
            "sender is the client: write as many hops as there are proxies, and see that nobody "
            "can connect but through all of them",
            self._header,
            found,
            self._hops,
            self._hops,
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

        The message names local peers only. There is none where Werkzeug's ProxyFix has put the
        visitor's address into REMOTE_ADDR.

        :param address: the peer's; None on a unix socket, and for text that is not an address.
        :param are_others_known: whether other peers have sent requests and need no more calls.
        :return: whether this peer needs no more calls. For a peer on the internet one call is
            enough. A local peer is watched for longer, as its first requests may be health checks.
        """
        if _PROXY_FIX in environ:
            return True
        header = self._forwarding_header(environ)
        if peer not in UNIX_PEERS and (address is None or address.is_unspecified):
            self._no_address(peer, header)
            return True
        if not is_local(address):
            if header is not None and _WAITRESS not in environ:
                self._strangers_header(header)
            return True
        name = "unix" if address is None else address
        if header is not None:
            self._log_once(
                "untrusted proxy",
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
        requests = self._requests.keep(peer, self._requests.get(peer, 0) + 1)
        if requests < WATCHED_REQUESTS:
            return False
        if len(self._requests) == 1 and not are_others_known:
            remedy = f"let it set {self._header} and write client_ip: {{trusted_proxies: [{name}]}}"
            self._log_once(
                "only peer",
                logging.WARNING,
                "all of the first %d requests came from %s, which is local, without a forwarding "
                "header: if it is a proxy of yours, all clients behind it count as one; %s",
                requests,
                address or "a unix socket",
                self._waitress_remedy(peer) if _WAITRESS in environ else remedy,
            )
        return True

    def _no_address(self, peer: str, header: str | None) -> None:
        """A peer that cannot be listed among the trusted proxies."""
        self._log_once(
            "no address",
            logging.WARNING,
            "the server says that requests come from %s, which is no address, so that all of them "
            "count as one client and none is a trusted proxy's: if every request comes through as "
            "many proxies, write client_ip: {hops: 1, header: %s}, or what their number is",
            escaped(peer),
            header or self._header,
        )

    def _strangers_header(self, header: str) -> None:
        """A header of somebody on the internet, who is not named: to trust a visitor would let it
        choose its address."""
        self._log_once(
            "stranger's header",
            logging.WARNING,
            "%s comes from addresses on the internet that are no trusted proxies, and is ignored: "
            "if the site is behind a CDN, list the networks that the CDN publishes in client_ip: "
            "{trusted_proxies: [...], header: %s}; if not, a visitor made it up, and all is well",
            header,
            header,
        )

    def missing_header(self, peer: str, environ: dict[str, Any]) -> None:
        """Call this when a trusted proxy sends a request without the forwarding header."""
        other = self._forwarding_header(environ)
        nginx = (
            " (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for)"
            if self._header.lower() == "x-forwarded-for"
            else ""
        )
        if other:
            remedy = f"it sends {other}: write client_ip: {{header: {other}}}"
        elif _WAITRESS in environ:
            remedy = self._waitress_remedy(peer)
        else:
            remedy = f"let it set the header{nginx}, or ignore this if it was a health check"
        if self._hops is not None:
            remedy += "; and see that nobody can connect but through all of the proxies"
        self._log_once(
            ("missing header", other),
            logging.WARNING,
            "the trusted proxy at %s sent no %s, so that all clients behind it count as one: %s",
            escaped(peer) if peer not in UNIX_PEERS else "the unix socket",
            self._header,
            remedy,
        )

    def _waitress_remedy(self, peer: str) -> str:
        """What to write where it may be waitress that took the header away, as it does unless it is
        told whom to trust."""
        proxy = f"trusted_proxy={escaped(peer)!r}"
        if self._hops is not None:
            proxy = f"trusted_proxy='*', trusted_proxy_count={self._hops}"
        return (
            "waitress removes forwarding headers that come from anybody but its own trusted_proxy: "
            f"call waitress.serve with {proxy}, trusted_proxy_headers={self._header.lower()!r} and "
            "let the proxy set that header"
        )

    def _forwarding_header(self, environ: dict[str, Any]) -> str | None:
        """The name of a forwarding header that the request has; None if it has none."""
        return next((name for key, name in self._names.items() if key in environ), None)
