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
        pytest.param("192.0.2.1:5000", "ip:192.0.2.1", id="with a port"),
        pytest.param("[2001:db8::1]:443", "ip:2001:db8::/64", id="IPv6 with a port"),
        pytest.param("2001:DB8:0:1:a:b:c:d", "ip:2001:db8:0:1::/64", id="IPv6, its network"),
        pytest.param("fe80::1%eth0", "ip:fe80::/64", id="zone id"),
        pytest.param("", "ip:unix", id="gunicorn on a unix socket"),
        pytest.param(None, "ip:unix", id="no REMOTE_ADDR"),
        pytest.param("localhost", "ip:unix", id="waitress on a unix socket"),
        pytest.param("<local>", "ip:unix", id="Werkzeug on a unix socket"),
        pytest.param("some, thing", "ip:some%2C%20thing", id="a server of its own kind"),
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


@given(st.ip_addresses(), st.sampled_from(["{}", "[{}]", " {} ", "[{}]:80", "x, {}"]))
def test_an_address_is_found_however_it_is_written(address: Any, form: str) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    environ = {"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": form.format(address)}
    found = Clients(ClientIP()).address(environ)
    assert found == (mapped or address) or address in ip_network("64:ff9b::/96")


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

    def test_a_stranger_does_not_hide_the_proxy(self, caplog: pytest.LogCaptureFixture) -> None:
        clients = Clients(ClientIP())
        clients.key({"REMOTE_ADDR": "203.0.113.9", "HTTP_X_FORWARDED_FOR": "1.1.1.1"})
        clients.key({"REMOTE_ADDR": "172.17.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"})
        assert [record.args[0] for record in caplog.records] == [  # type: ignore[index]
            ip_address("203.0.113.9"),
            ip_address("172.17.0.1"),
        ]

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


class TestNetworks:
    @pytest.mark.parametrize(
        ("network", "inside", "outside"),
        [
            ("192.0.2.7", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
            ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
            ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::"], ["2001:db7::", "2001:db9::"]),
            ("::ffff:192.0.2.0/120", ["192.0.2.9"], ["192.0.3.0", "::c000:209"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "::1"]),
            ("::/0", ["::", "::1"], ["0.0.0.0"]),
        ],
    )
    def test_an_address_is_in_its_network(
        self, network: str, inside: list[str], outside: list[str]
    ) -> None:
        networks = Networks([network])
        assert all(networks.contains(ip_address(text)) for text in inside)
        assert not any(networks.contains(ip_address(text)) for text in outside)

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
        for address in addresses:
            taken = [bytecodes(partial(networks.contains, address)) for networks in (few, many)]
            # Where a range may have it, its end is looked at besides.
            assert taken[1] < taken[0] + 20

    def test_a_network_of_a_configuration_is_strict(self) -> None:
        with pytest.raises(ValueError, match=r"192\.0\.2\.0/24 for the network"):
            parse_network("192.0.2.7/24")
