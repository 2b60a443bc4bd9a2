"""Which address a request is charged to, and what is logged about proxies that are not trusted."""

from __future__ import annotations

import logging
import time
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix

from support.bytecodes import bytecodes
from wsgi_throttle.identity import ClientIP, Clients, Networks, parse_network, read_networks
from wsgi_throttle.identity.address import MAX_CACHED, MAX_CACHED_LENGTH, MAX_HOPS
from wsgi_throttle.identity.forwarding import parse_address
from wsgi_throttle.identity.proxies import WATCHED_REQUESTS

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::/48", "unix")


def key(peer: str | None, forwarded: str | None = None, **settings: Any) -> str:
    """The key of a request.

    :param forwarded: the value of the header that the settings name.
    """
    client_ip = ClientIP(**{"trusted_proxies": PROXIES, **settings})
    environ = {} if peer is None else {"REMOTE_ADDR": peer}
    if forwarded is not None:
        environ["HTTP_" + client_ip.header.upper().replace("-", "_")] = forwarded
    clients = Clients(client_ip)
    first = clients.key(environ)
    assert clients.key(environ) == first, "a client seen before is another one"
    return first


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        pytest.param("192.0.2.1", "ip:192.0.2.1", id="plain"),
        pytest.param("::ffff:192.0.2.1", "ip:192.0.2.1", id="mapped, on a dual-stack socket"),
        pytest.param("::FFFF:c000:201", "ip:192.0.2.1", id="mapped, in hexadecimal and upper case"),
        pytest.param("0:0:0:0:0:ffff:192.0.2.1", "ip:192.0.2.1", id="mapped, uncompressed"),
        pytest.param("64:ff9b::192.0.2.1", "ip:192.0.2.1", id="translated by the network"),
        pytest.param("2002:c000:201::1", "ip:192.0.2.1", id="6to4"),
        pytest.param("2002:c000:201:ffff:1:2:3:4", "ip:192.0.2.1", id="6to4, anywhere in its site"),
        pytest.param("[2002:c000:201::1]:443", "ip:192.0.2.1", id="6to4 with a port"),
        pytest.param("2002:a00:1::1", "ip:2002:a00:1::/64", id="6to4 of no tunnel"),
        pytest.param("2001:0:cb00:71aa:0:63bf:3fff:fdfe", "ip:192.0.2.1", id="Teredo"),
        pytest.param("2001:0:102:304:8000:1:3fff:fdfe", "ip:192.0.2.1", id="by another server"),
        pytest.param(
            "2001:0:102:304:8000:1:f5ff:fffe", "ip:2001:0:102:304::/64", id="Teredo of no tunnel"
        ),
        pytest.param("192.0.2.1:5000", "ip:192.0.2.1", id="with a port"),
        pytest.param("[2001:db8::1]:443", "ip:2001:db8::/64", id="IPv6 with a port"),
        pytest.param("2001:DB8:0:1:a:b:c:d", "ip:2001:db8:0:1::/64", id="IPv6, its network"),
        pytest.param("fe80::1%eth0", "ip:fe80::/64", id="zone id"),
        pytest.param("", "ip:unix", id="gunicorn on a unix socket"),
        pytest.param(None, "ip:unknown", id="no REMOTE_ADDR"),
        pytest.param("localhost", "ip:unix", id="waitress on a unix socket"),
        pytest.param("<local>", "ip:unix", id="Werkzeug on a unix socket"),
        pytest.param("some, thing", "ip:some%2C%20thing", id="a server of its own kind"),
        pytest.param("0.0.0.0", "ip:0.0.0.0", id="uWSGI on a unix socket"),
    ],
)
def test_the_peer_is_the_client_without_a_header(peer: str | None, expected: str) -> None:
    assert key(peer) == expected
    assert key(peer, trusted_proxies=()) == expected


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="one address"),
        pytest.param("203.0.113.9, 192.0.2.1", "192.0.2.1", id="spoofed left of what was appended"),
        pytest.param(
            "203.0.113.9,192.0.2.1", "192.0.2.1", id="several lines, joined by the server"
        ),
        pytest.param("192.0.2.1, 10.1.1.1, 10.2.2.2", "192.0.2.1", id="through trusted proxies"),
        pytest.param("192.0.2.1, unix:", "192.0.2.1", id="nginx behind nginx on a unix socket"),
        pytest.param("10.1.1.1, 10.2.2.2", "10.1.1.1", id="a client within the trusted network"),
        pytest.param("192.0.2.1:4711", "192.0.2.1", id="with a port"),
        pytest.param("[2001:db8::1]:4711", "2001:db8::/64", id="IPv6 in brackets with a port"),
        pytest.param("[2001:db8::1]", "2001:db8::/64", id="IPv6 in brackets"),
        pytest.param("2001:db8::1", "2001:db8::/64", id="IPv6 bare"),
        pytest.param("2001:db8::1%1", "2001:db8::/64", id="zone id"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="mapped IPv4"),
        pytest.param(" \t192.0.2.1 \t", "192.0.2.1", id="spaces and tabs"),
        pytest.param("192.0.2.1,, ,", "192.0.2.1", id="empty elements"),
        pytest.param("192.0.2.1, 2001:db8:ffff::9", "192.0.2.1", id="a trusted proxy on IPv6"),
        pytest.param("192.0.2.1, ::ffff:10.0.0.9", "192.0.2.1", id="a trusted proxy, mapped"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_no_proxy(
    forwarded: str, expected: str
) -> None:
    for peer in ("10.0.0.1", "::ffff:10.0.0.1", ""):
        assert key(peer, forwarded) == f"ip:{expected}"


GARBAGE = [
    pytest.param("", id="empty"),
    pytest.param(",, ,\t,", id="only commas"),
    pytest.param("," * 100_000, id="100 KB of commas"),
    pytest.param("a" * 100_000, id="100 KB without a comma"),
    pytest.param("unknown", id="unknown"),
    pytest.param("_hidden", id="obfuscated"),
    pytest.param("evil.example", id="a name"),
    pytest.param("192.0.2", id="too short"),
    pytest.param("192.0.2.256", id="out of range"),
    pytest.param("192.0.2.1.5", id="too long"),
    pytest.param("192.000.002.001", id="leading zeros"),
    pytest.param("0xc0.0.2.1", id="hexadecimal"),
    pytest.param("3221225985", id="one number"),
    pytest.param("192.0.2.1:", id="a colon without a port"),
    pytest.param("192.0.2.1:99999999", id="an impossible port"),
    pytest.param("192.0.2.1:http", id="a port by name"),
    pytest.param("[2001:db8::1", id="an open bracket"),
    pytest.param("2001:db8::1]", id="a closed bracket"),
    pytest.param("[2001:db8::1]x", id="something after the bracket"),
    pytest.param("2001:db8:::1", id="three colons"),
    pytest.param("192.0.2.1 203.0.113.9", id="two without a comma"),
    pytest.param("192.0.2.1/32", id="a network"),
    pytest.param("\u0661\u0669\u0662.0.2.1", id="other digits"),
    pytest.param("192.0.2.1\x00", id="NUL"),
    pytest.param("192.0.2.1\n", id="line feed"),
    pytest.param("\xff\xfe", id="bytes that are no text"),
]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_counts_as_the_proxy_that_handed_it_on(garbage: str, header: str) -> None:
    assert key("10.0.0.1", garbage, header=header) == "ip:10.0.0.1"
    assert key("", garbage, header=header) == "ip:unix"


def test_garbage_left_of_an_inner_proxy_counts_as_that_proxy() -> None:
    assert key("10.0.0.1", "192.0.2.1, garbage, 10.5.5.5") == "ip:10.5.5.5"


def test_no_more_than_some_hops_are_followed() -> None:
    hops = [f"10.0.1.{number}" for number in range(MAX_HOPS + 5)]
    last_seen = hops[-MAX_HOPS]
    assert key("10.0.0.1", ", ".join(["192.0.2.1", *hops])) == f"ip:{last_seen}"


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", "127.0.0.1", "", "nonsense"])
def test_a_header_from_an_untrusted_peer_is_ignored(peer: str) -> None:
    assert key(peer, "203.0.113.9", trusted_proxies=()) == key(peer, trusted_proxies=())


def test_a_list_of_proxies_replaces_the_trust_in_unix_sockets() -> None:
    assert key("", "192.0.2.1", trusted_proxies=("10.0.0.0/8",)) == "ip:unix"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        pytest.param("for=192.0.2.1", "192.0.2.1", id="bare"),
        pytest.param(
            "For=192.0.2.1;Proto=https;by=10.0.0.1", "192.0.2.1", id="any case, parameters"
        ),
        pytest.param("proto=https; for=192.0.2.1 ; by=_x", "192.0.2.1", id="anywhere, spaces"),
        pytest.param('for="192.0.2.1:80"', "192.0.2.1", id="quoted with a port"),
        pytest.param('for="[2001:db8::1]:80"', "2001:db8::/64", id="IPv6"),
        pytest.param(r'for="\1\92.0.2.1"', "192.0.2.1", id="quoted pairs"),
        pytest.param("for=203.0.113.9, for=192.0.2.1", "192.0.2.1", id="spoofed left"),
        pytest.param("for=192.0.2.1, for=10.1.1.1;by=10.0.0.1", "192.0.2.1", id="two hops"),
        pytest.param('for=", for=192.0.2.1', "192.0.2.1", id="an opening quote left"),
        pytest.param('for=203.0.113.9;x="\\, for=192.0.2.1', "192.0.2.1", id="a backslash left"),
        pytest.param(
            'for=", for="[2001:db8::1]"', "2001:db8::/64", id="a quote that seems to pair"
        ),
        pytest.param(
            r'for=192.0.2.1;host="x, for=203.0.113.9;y=\""', "192.0.2.1", id="a comma in quotes"
        ),
        pytest.param(
            r'for=192.0.2.1;host="x\", for=203.0.113.9"', "192.0.2.1", id="an escaped quote"
        ),
        pytest.param("for=192.0.2.1, , ,", "192.0.2.1", id="empty elements"),
    ],
)
def test_the_forwarded_header_is_read_from_the_right(forwarded: str, expected: str) -> None:
    assert key("10.0.0.1", forwarded, header="Forwarded") == f"ip:{expected}"


@pytest.mark.parametrize(
    "element",
    [
        "for=unknown",
        "for=_SEVKISEK",
        'for="_SEVKISEK:80"',
        "proto=https;by=192.0.2.1",
        "for=192.0.2.1;for=203.0.113.9",
        "for",
        "for=",
        "=192.0.2.1",
        "for =192.0.2.1",
        'for="192.0.2.1',
        'for=192.0.2.1"',
        "192.0.2.1",
        ";".join(["for=192.0.2.1"] + ["x=y"] * 100),
        "x=y;" * 30_000,
        'for="' + "\\" * 100_000 + '"',
        'for="' + '"\\' * 50_000 + '"',
    ],
    ids=lambda text: text[:30],
)
def test_an_element_that_names_no_address_counts_as_the_proxy(element: str) -> None:
    started = time.perf_counter()
    assert key("10.0.0.1", f"for=203.0.113.9, {element}", header="Forwarded") == "ip:10.0.0.1"
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("header", ["X-Real-IP", "CF-Connecting-IP", "True-Client-IP"])
def test_any_header_with_an_address_can_be_the_one(header: str) -> None:
    assert key("10.0.0.1", "192.0.2.1", header=header) == "ip:192.0.2.1"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [(128, "2001:db8:1:2:3::4"), (64, "2001:db8:1:2::/64"), (48, "2001:db8:1::/48")],
)
def test_an_ipv6_network_is_one_client(prefix: int, expected: str) -> None:
    assert key("2001:db8:1:2:3::4", ipv6_prefix=prefix) == f"ip:{expected}"


def test_rotation_within_a_64_is_one_client_and_across_is_not() -> None:
    random = Random(1)
    within = {key(f"2001:db8:0:7:{random.getrandbits(16):x}::{n}") for n in range(1, 100)}
    across = {key(f"2001:db8:0:{n:x}::1") for n in range(1, 100)}
    assert within == {"ip:2001:db8:0:7::/64"}
    assert len(across) == 99


def test_a_zone_id_makes_no_other_client() -> None:
    zones = {key(f"fe80::1%{zone}", ipv6_prefix=128) for zone in ("eth0", "eth1", "x" * 20)}
    assert zones == {"ip:fe80::1"}


def test_an_ipv4_network_can_be_one_client() -> None:
    assert key("192.0.2.77", ipv4_prefix=24) == "ip:192.0.2.0/24"
    assert key("::ffff:192.0.2.78", ipv4_prefix=24) == "ip:192.0.2.0/24"


EMBEDDING = list(
    map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)  # whose addresses may be those of IPv4 clients


@given(st.ip_addresses(), st.sampled_from(["{}", "[{}]", " {} ", "[{}]:80", "x, {}"]))
def test_an_address_is_found_however_it_is_written(address: Any, form: str) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    environ = {"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": form.format(address)}
    found = Clients(ClientIP()).address(environ)
    assert found == (mapped or address) or any(address in net for net in EMBEDDING)
    assert Networks([str(address)]).contains(found)
    assert Networks([str(found)]).contains(found)


@given(st.text(st.characters(max_codepoint=255)))
def test_no_text_is_a_client_unless_it_holds_an_address(text: str) -> None:
    for header in ("X-Forwarded-For", "Forwarded"):
        environ = {"REMOTE_ADDR": "", f"HTTP_{header.upper().replace('-', '_')}": text}
        clients = Clients(ClientIP(header=header))
        if clients.key(environ) != "ip:unix":
            assert str(clients.address(environ)) in text or ":" in text


@given(st.text())
def test_no_text_breaks_the_address_parser(text: str) -> None:
    assert isinstance(parse_address(text), (IPv4Address, IPv6Address, type(None)))


class TestMemory:
    def test_clients_are_not_remembered_without_bound(self) -> None:
        clients = Clients(ClientIP())
        for number in range(MAX_CACHED + 50):
            clients.key({"REMOTE_ADDR": str(IPv4Address(0x01000000 + number))})
            clients.key({"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": f"192.0.2.1, junk{number}"})
        assert 0 < len(clients._untrusted) <= MAX_CACHED
        assert 0 < len(clients._forwarded) <= MAX_CACHED

    def test_a_long_header_is_read_and_not_remembered(self) -> None:
        clients = Clients(ClientIP())
        header = "203.0.113.9," * MAX_CACHED_LENGTH + "192.0.2.1"
        assert clients.key({"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": header}) == "ip:192.0.2.1"
        assert not clients._forwarded


class TestAdvice:
    """Each warning is logged once, and says what to write into the rule file."""

    @pytest.fixture(autouse=True)
    def _log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "wsgi_throttle")

    def test_a_forwarding_header_from_an_untrusted_peer(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients = Clients(ClientIP())
        for peer in ("172.17.0.1", "172.17.0.2"):
            for _ in range(3):
                clients.key({"REMOTE_ADDR": peer, "HTTP_X_REAL_IP": "192.0.2.1\nforged line"})
        assert "trusted_proxies: [172.17.0.1], header: X-Real-IP" in caplog.text
        assert len(caplog.records) == 1
        assert "forged line" not in caplog.text

    def test_a_forwarding_header_after_a_health_check(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients = Clients(ClientIP())
        clients.key({"REMOTE_ADDR": "172.17.0.1"})
        assert not caplog.records
        clients.key({"REMOTE_ADDR": "172.17.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"})
        assert "trusted_proxies: [172.17.0.1]" in caplog.text

    def test_a_stranger_is_not_named_and_does_not_hide_the_proxy(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients = Clients(ClientIP())
        for visitor in ("203.0.113.9", "2001:db8::9", "2002:a00:1::1"):
            clients.key({"REMOTE_ADDR": visitor, "HTTP_X_FORWARDED_FOR": "1.1.1.1"})
        assert len(caplog.records) == 1
        assert "networks that the CDN publishes" in caplog.text
        clients.key({"REMOTE_ADDR": "172.17.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"})
        assert "trusted_proxies: [172.17.0.1]" in caplog.text
        for visitor in ("203.0.113.9", "2001:db8::9", "2002:a00:1::1"):
            assert visitor not in caplog.text

    @pytest.mark.parametrize("visitor", ["203.0.113.9", "10.0.0.7"])
    def test_not_where_proxy_fix_has_found_the_visitor(
        self, visitor: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients = Clients(ClientIP())

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            assert clients.key(environ) == f"ip:{visitor}"
            return []

        fixed = ProxyFix(application)
        for _ in range(WATCHED_REQUESTS + 5):
            environ = {"REMOTE_ADDR": "172.17.0.1", "HTTP_X_FORWARDED_FOR": visitor}
            fixed(environ, lambda *_: lambda _: None)
        assert not caplog.records

    def test_a_server_that_gives_no_address(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP())
        for peer in ({}, {"REMOTE_ADDR": None}):
            environ = {**peer, "HTTP_X_REAL_IP": "192.0.2.1"}
            assert clients.key(environ) == "ip:unknown"
            assert clients.address(environ) is None
        assert len(caplog.records) == 1
        assert "client_ip: {hops: 1, header: X-Real-IP}" in caplog.text

    def test_an_address_that_uwsgi_makes_up(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP())
        environ = {"REMOTE_ADDR": "0.0.0.0", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}
        assert clients.key(environ) == "ip:0.0.0.0"
        assert "hops: 1" in caplog.text
        assert "trusted_proxies" not in caplog.text

    def test_gevent_gives_none_for_a_unix_socket(self, caplog: pytest.LogCaptureFixture) -> None:
        environ = {"SERVER_SOFTWARE": "gevent/26.9 Python/3.13", "HTTP_X_FORWARDED_FOR": "1.2.3.4"}
        assert Clients(ClientIP()).key(environ) == "ip:1.2.3.4"
        assert Clients(ClientIP(())).key(environ) == "ip:unix"

    def test_waitress_removes_the_header_by_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        served = {"waitress.client_disconnected": lambda: False}
        clients = Clients(ClientIP())
        for _ in range(WATCHED_REQUESTS + 5):
            clients.key({"REMOTE_ADDR": "10.0.0.7", **served})
        assert "trusted_proxy='10.0.0.7', trusted_proxy_headers='x-forwarded-for'" in caplog.text
        assert "trusted_proxies" not in caplog.text
        clients.key({"REMOTE_ADDR": "localhost", **served})
        assert "trusted_proxy='localhost'" in caplog.text

    def test_not_where_waitress_has_found_the_visitor(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        environ = {
            "REMOTE_ADDR": "203.0.113.9",
            "HTTP_X_FORWARDED_FOR": "203.0.113.9",
            "waitress.client_disconnected": lambda: False,
        }
        assert Clients(ClientIP()).key(environ) == "ip:203.0.113.9"
        assert not caplog.records

    @pytest.mark.parametrize(
        ("server", "name"),
        [
            ({"uwsgi.version": b"2.0.31"}, "uWSGI"),
            ({"SERVER_SOFTWARE": "WSGIServer/0.2"}, "wsgiref"),
            ({"SERVER_SOFTWARE": "Cheroot/11.1.2 Server"}, "cheroot"),
        ],
    )
    def test_a_server_that_takes_underscores_for_dashes(
        self, server: dict[str, Any], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients = Clients(ClientIP(("10.0.0.0/8",), header="CF-Connecting-IP"))
        clients.key({"REMOTE_ADDR": "203.0.113.9", **server})
        assert not caplog.records, "nothing is believed there"
        for peer in ("10.0.0.1", "10.0.0.2"):
            clients.key({"REMOTE_ADDR": peer, "HTTP_CF_CONNECTING_IP": "192.0.2.1", **server})
        assert len(caplog.records) == 1
        assert f"{name} takes CF_Connecting_IP for CF-Connecting-IP" in caplog.text

    def test_not_a_server_that_drops_underscores(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP(("10.0.0.0/8",)))
        environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}
        clients.key({**environ, "SERVER_SOFTWARE": "gunicorn/23.0.0"})
        assert not caplog.records

    def test_all_requests_from_one_local_address(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP())
        for _ in range(WATCHED_REQUESTS + 5):
            clients.key({"REMOTE_ADDR": "10.0.0.7"})
        assert "trusted_proxies: [10.0.0.7]" in caplog.text
        assert len(caplog.records) == 1

    def test_nothing_if_one_local_address_is_not_the_only_one(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients = Clients(ClientIP())
        clients.key({"REMOTE_ADDR": "203.0.113.9"})
        for _ in range(WATCHED_REQUESTS + 5):
            clients.key({"REMOTE_ADDR": "10.0.0.7"})
        assert not caplog.records

    def test_a_unix_socket_is_trusted(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP())
        for _ in range(3):
            clients.key({"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "192.0.2.1"})
        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert "unix socket" in caplog.text

    def test_a_unix_socket_that_is_not_trusted(self, caplog: pytest.LogCaptureFixture) -> None:
        Clients(ClientIP(("10.0.0.0/8",))).key(
            {"REMOTE_ADDR": "", "HTTP_FORWARDED": "for=192.0.2.1"}
        )
        assert "trusted_proxies: [unix], header: Forwarded" in caplog.text

    def test_a_trusted_proxy_without_the_header(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP(("10.0.0.0/8",)))
        for _ in range(3):
            clients.key({"REMOTE_ADDR": "10.0.0.1"})
        assert "sent no X-Forwarded-For" in caplog.text
        assert "proxy_set_header" in caplog.text
        assert len(caplog.records) == 1

    def test_a_trusted_proxy_with_another_header(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP(("10.0.0.0/8",)))
        clients.key({"REMOTE_ADDR": "10.0.0.1", "HTTP_X_REAL_IP": "192.0.2.1"})
        assert "client_ip: {header: X-Real-IP}" in caplog.text

    def test_a_balancer_that_is_missing_from_the_list(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients = Clients(ClientIP(("10.0.0.1",)))
        environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1, 10.0.0.2"}
        assert clients.key(environ) == "ip:10.0.0.2"
        assert "trusted_proxies: [10.0.0.2]" in caplog.text

    @pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0", "::ffff:0:0/96"])
    def test_trust_in_everybody(self, everybody: str, caplog: pytest.LogCaptureFixture) -> None:
        settings = ClientIP((everybody,))
        assert "trusts everybody" in settings.warnings[0]
        clients = Clients(settings)
        clients.key({"REMOTE_ADDR": "203.0.113.9"})
        clients.key({"REMOTE_ADDR": "203.0.113.10"})
        assert caplog.text.count("trusts everybody") == 1

    def test_nothing_about_ordinary_clients(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP(("10.0.0.0/8",)))
        clients.key({"REMOTE_ADDR": "203.0.113.9"})
        clients.key({"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"})
        assert not caplog.records


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"trusted_proxies": ("proxy.example",)}, "host names are not looked up"),
        ({"trusted_proxies": ("10.0.0.5/8",)}, r"write 10\.0\.0\.0/8 for the network"),
        ({"trusted_proxies": ("Unix",)}, '"unix"'),
        ({"header": "X-Forwarded-For: "}, "write X-Forwarded-For"),
        ({"header": ""}, "write X-Forwarded-For"),
        ({"ipv6_prefix": 129}, "from 16 to 128"),
        ({"ipv4_prefix": 0}, "from 8 to 32"),
    ],
)
def test_a_bad_setting_says_what_to_write(settings: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        ClientIP(**settings)


def test_a_header_that_is_never_read_is_warned_of() -> None:
    assert "trusted_proxies is empty" in ClientIP((), header="X-Real-IP").warnings[0]
    assert not ClientIP().warnings


def _networks_of(address: Any) -> st.SearchStrategy[Any]:
    return st.integers(8, 32).map(lambda bits: ip_network((int(address), bits), strict=False))


class TestHops:
    """``hops: N``: the N-th node from the right, whoever the proxies are."""

    @pytest.fixture(autouse=True)
    def _log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "wsgi_throttle")

    @pytest.mark.parametrize("peer", ["203.0.113.7", "10.0.0.1", "2001:db8::1", "", None])
    @pytest.mark.parametrize(
        ("hops", "header", "value", "expected"),
        [
            pytest.param(1, "X-Forwarded-For", "192.0.2.1", "192.0.2.1", id="one"),
            pytest.param(1, "X-Forwarded-For", "6.6.6.6, 192.0.2.1", "192.0.2.1", id="spoofed"),
            pytest.param(2, "X-Forwarded-For", "192.0.2.1, 203.0.113.8", "192.0.2.1", id="two"),
            pytest.param(
                2, "X-Forwarded-For", "6.6.6.6, 192.0.2.1, 203.0.113.8", "192.0.2.1", id="spoofed 2"
            ),
            pytest.param(2, "X-Forwarded-For", "192.0.2.1, unix:", "192.0.2.1", id="unix between"),
            pytest.param(2, "X-Forwarded-For", "192.0.2.1, garbage", "192.0.2.1", id="one hidden"),
            pytest.param(2, "Forwarded", "for=192.0.2.1, for=_hidden", "192.0.2.1", id="RFC 7239"),
            pytest.param(1, "X-Real-IP", "192.0.2.1:443", "192.0.2.1", id="X-Real-IP"),
            pytest.param(1, "X-Forwarded-For", "10.0.0.9", "10.0.0.9", id="a local client"),
        ],
    )
    def test_the_client_is_at_its_place(
        self, peer: str | None, hops: int, header: str, value: str, expected: str
    ) -> None:
        settings = {"trusted_proxies": ("unix",), "hops": hops, "header": header}
        assert key(peer, value, **settings) == f"ip:{expected}"

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("X-Forwarded-For", None),
            ("X-Forwarded-For", ""),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-For", "unknown, 192.0.2.1"),
            ("X-Forwarded-For", "unix:, 192.0.2.1"),
            ("Forwarded", "for=192.0.2.1"),
            ("Forwarded", "for=6.6.6.6, for, for=192.0.2.1"),
            ("Forwarded", "for=6.6.6.6, proto=https, for=192.0.2.1"),
        ],
    )
    def test_a_header_that_does_not_have_it_counts_as_the_peer(
        self, header: str, value: str | None
    ) -> None:
        settings = {"trusted_proxies": ("unix",), "hops": 2, "header": header}
        assert key("203.0.113.7", value, **settings) == "ip:203.0.113.7"
        assert key("", value, **settings) == "ip:unix"
        assert key(None, value, **settings) == "ip:unknown"

    def test_too_many_hops_are_told(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP(hops=3))
        for _ in range(3):
            clients.key({"REMOTE_ADDR": "203.0.113.7", "HTTP_X_FORWARDED_FOR": "192.0.2.1"})
        assert len(caplog.records) == 1
        assert "has 1 addresses where client_ip: {hops: 3} says 3" in caplog.text

    def test_too_few_hops_are_told(self, caplog: pytest.LogCaptureFixture) -> None:
        environ = {"REMOTE_ADDR": "203.0.113.7", "HTTP_X_FORWARDED_FOR": "192.0.2.1, 10.0.0.2"}
        Clients(ClientIP(hops=1)).key(environ)
        assert "client_ip: {hops: 2}" in caplog.text

    def test_who_connects_past_the_proxies_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        Clients(ClientIP(hops=1)).key({"REMOTE_ADDR": "203.0.113.7"})
        assert "nobody can connect but through all of the proxies" in caplog.text

    @pytest.mark.parametrize(
        ("settings", "remedy"),
        [
            ({"hops": 0}, "from 1 to 32"),
            ({"hops": 33}, "from 1 to 32"),
            ({"hops": 1, "trusted_proxies": ("10.0.0.0/8",)}, "leave one of them out"),
            ({"hops": 1, "trusted_proxies": ()}, "leave one of them out"),
        ],
    )
    def test_what_makes_no_sense_stops_the_start(
        self, settings: dict[str, Any], remedy: str
    ) -> None:
        with pytest.raises(ValueError, match=remedy):
            ClientIP(**settings)

    def test_a_header_of_one_address_has_one_hop(self) -> None:
        assert "write hops: 1" in ClientIP(hops=2, header="X-Real-IP").warnings[0]
        assert not ClientIP(hops=1, header="X-Real-IP").warnings


@pytest.mark.parametrize(
    "written",
    [
        pytest.param("64:ff9b:1::192.0.2.33", id="96 bits"),
        pytest.param("64:ff9b:1:fffe::192.0.2.33", id="96 bits, of another translator"),
        pytest.param("64:ff9b:1:fffe:12:3456:192.0.2.33", id="96 bits, with a long subnet"),
        pytest.param("64:ff9b:1:7:c0:2:2100:0", id="64 bits"),
        pytest.param("64:ff9b:1:7c0:0:221::", id="56 bits"),
        pytest.param("64:ff9b:1:c000:2:2100::", id="48 bits"),
    ],
)
def test_a_local_translator_may_put_the_ipv4_address_at_several_places(written: str) -> None:
    """RFC 6052, section 2.2 and 2.4."""
    assert key(written) == "ip:192.0.2.33"
    assert Networks(["192.0.2.33"]).contains(parse_address(written))
    assert Networks([written]).contains(IPv4Address("192.0.2.33"))


@given(st.ip_addresses(v=4), st.integers(0, 255), st.sampled_from([96, 64, 56, 48]))
def test_a_locally_translated_address_is_one_client(
    address: IPv4Address, subnet: int, length: int
) -> None:
    """As RFC 6052 builds it, for addresses of hosts: none of a network that ends in .0."""
    first, rest = int(address) >> 24, int(address) & 0xFFFFFF
    number = int(IPv6Address("64:ff9b:1::"))
    if length == 96:
        number |= subnet << 72 | int(address)
    elif length == 64:
        number |= subnet << 64 | int(address) << 24
    elif length == 56:
        number |= subnet << 72 | first << 64 | rest << 32
    else:
        number |= int(address) >> 16 << 64 | (int(address) & 0xFFFF) << 40
    if int(address) & 0xFF and first:
        assert parse_address(str(IPv6Address(number))) == address
    else:
        parse_address(str(IPv6Address(number)))


def test_bits_that_no_translator_sets_make_it_no_translated_address() -> None:
    assert key("64:ff9b:1:0:100:0:c000:221") == "ip:64:ff9b:1::/64"
    assert key("64:ff9b:1::") == "ip:64:ff9b:1::/64"


class TestNetworks:
    @pytest.mark.parametrize(
        ("network", "inside", "outside"),
        [
            ("192.0.2.7", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
            ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
            ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::"], ["2001:db7::", "2001:db9::"]),
            ("::ffff:192.0.2.0/120", ["192.0.2.9"], ["192.0.3.0", "::c000:209"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "::1"]),
            ("2002:c000:200::/40", ["192.0.2.9"], ["192.0.3.0"]),
            ("2002:c000:201:7::/64", ["192.0.2.1"], ["192.0.2.2"]),
            ("64:ff9b::c000:200/120", ["192.0.2.9"], ["192.0.3.0"]),
            ("64:ff9b:1::c000:200/120", ["192.0.2.9"], ["192.0.3.0"]),
            ("2001:0:1:2:3:4:3fff:fd00/120", ["192.0.2.9"], ["192.0.3.0"]),
            ("2002:a00::/24", [], ["10.0.0.1"]),
            ("2002::/16", [], ["192.0.2.9"]),
            ("2001::/32", [], ["192.0.2.9"]),
            ("64:ff9b::/96", [], ["192.0.2.9"]),
            ("::/0", ["::", "::1"], ["0.0.0.0"]),
        ],
    )
    def test_an_address_is_in_its_network(
        self, network: str, inside: list[str], outside: list[str]
    ) -> None:
        networks = Networks([network])
        assert all(networks.contains(ip_address(text)) for text in inside)
        assert not any(networks.contains(ip_address(text)) for text in outside)

    @pytest.mark.parametrize("tunnel", ["2002::/16", "2000::/3", "::/0", "2002:c000:201::/48"])
    def test_whoever_comes_through_a_tunnel_is_in_its_network(self, tunnel: str) -> None:
        networks = Networks([tunnel])
        assert networks.contains(parse_address("2002:c000:201::1"))
        assert not networks.contains(parse_address("192.0.2.2"))

    @given(st.lists(st.ip_addresses(v=4).flatmap(_networks_of), max_size=20), st.data())
    def test_it_agrees_with_a_search_through_each_network(
        self, networks: list[Any], data: st.DataObject
    ) -> None:
        found = Networks(map(str, networks))
        near = [net[index] for net in networks for index in (0, -1)]
        address = data.draw(st.sampled_from(near) if near else st.ip_addresses(v=4))
        for number in (int(address) - 1, int(address), int(address) + 1):
            if 0 <= number < 1 << 32:
                one = IPv4Address(number)
                assert found.contains(one) == any(one in net for net in networks)

    def test_an_empty_set_contains_no_address(self) -> None:
        assert not Networks()
        assert not Networks().contains(IPv4Address("0.0.0.0"))

    def test_a_client_without_an_address_is_in_none(self) -> None:
        assert not Networks(["0.0.0.0/0", "::/0"]).contains(None)

    def test_a_file_has_one_network_on_each_line(self, tmp_path: Path) -> None:
        path = tmp_path / "block.txt"
        path.write_text("# bad ones\n192.0.2.1\n\n  2001:db8::/32  # a whole one\r\n")
        assert list(map(str, read_networks(path))) == ["192.0.2.1/32", "2001:db8::/32"]

    def test_a_byte_order_mark_is_no_part_of_the_first_line(self, tmp_path: Path) -> None:
        path = tmp_path / "block.txt"
        path.write_text("192.0.2.1\n", encoding="utf-8-sig")
        assert list(map(str, read_networks(path))) == ["192.0.2.1/32"]

    @pytest.mark.parametrize("line", ["SECRET_KEY=hunter2", "hunter2", "a" * 40, "user:hunter2@h"])
    def test_a_line_that_may_be_a_secret_is_not_shown(self, line: str, tmp_path: Path) -> None:
        path = tmp_path / "block.txt"
        path.write_text(f"# the wrong file\n{line}\n")
        with pytest.raises(ValueError, match=r"block\.txt:2: this is not an address") as caught:
            read_networks(path)
        assert line not in str(caught.value)

    def test_a_bad_line_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "block.txt"
        path.write_text("192.0.2.1\n192.0.2.999\n")
        with pytest.raises(ValueError, match=r"block\.txt:2: \"192\.0\.2\.999\" is not an address"):
            read_networks(path)

    def test_a_file_that_is_missing_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cannot read the list of networks"):
            read_networks(tmp_path / "none.txt")

    def test_an_address_is_found_among_ten_thousand_in_as_few_steps_as_among_ten(self) -> None:
        random = Random(1)
        addresses = [IPv4Address(random.getrandbits(32)) for _ in range(100)]
        nets = [
            str(ip_network((random.getrandbits(32), random.randint(16, 32)), strict=False))
            for _ in range(10_000)
        ]
        few, many = Networks(nets[:10]), Networks(nets)
        bytecodes(partial(few.contains, addresses[0]))  # the first count is too small
        for address in addresses:
            taken = [bytecodes(partial(networks.contains, address)) for networks in (few, many)]
            # Where a range may have it, its end is looked at besides.
            assert taken[1] < taken[0] + 20

    def test_a_network_of_a_configuration_is_strict(self) -> None:
        with pytest.raises(ValueError, match=r"192\.0\.2\.0/24 for the network"):
            parse_network("192.0.2.7/24")
