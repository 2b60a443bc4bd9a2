"""Forwarding headers as RFC 7239, HAProxy and the Play framework have them in their examples and
tests, each with the client that it names."""

from __future__ import annotations

import pytest

from wsgi_throttle.identity import ClientIP, Clients

PEER = "127.0.0.1"
LOCAL = ("127.0.0.1", "::1")
NETWORK = ("127.0.0.1", "192.168.1.0/24")
PROXY = f"ip:{PEER}"  # who is counted where no client is named


def client(header: str, value: str, trusted: tuple[str, ...], peer: str = PEER) -> str:
    clients = Clients(ClientIP(trusted_proxies=trusted, header=header))
    name = "HTTP_" + header.upper().replace("-", "_")
    return clients.key({"REMOTE_ADDR": peer, name: value})


RFC_7239 = [
    # section 4
    ('for="_gazonk"', PROXY),
    ('For="[2001:db8:cafe::17]:4711"', "ip:2001:db8:cafe::/64"),
    ("for=192.0.2.60;proto=http;by=203.0.113.43", "ip:192.0.2.60"),
    ("for=192.0.2.43, for=198.51.100.17", "ip:198.51.100.17"),
    # section 6
    ('for="192.0.2.43:47011"', "ip:192.0.2.43"),
    ('for="[2001:db8:cafe::17]:47011"', "ip:2001:db8:cafe::/64"),
    ("for=unknown", PROXY),
    ("for=_hidden, for=_SEVKISEK", PROXY),
    ('for="192.0.2.43:_port9"', "ip:192.0.2.43"),
    ('for="192.0.2.43:_"', PROXY),
    ('for="192.0.2.43:port"', PROXY),
    ('for="192.0.2.43:_a b"', PROXY),
    ('for="[2001:db8:cafe::17]:_A0._-"', "ip:2001:db8:cafe::/64"),
    (f'for="192.0.2.43:_{"x" * 500}"', "ip:192.0.2.43"),
    ('for="_gazonk:_port9"', PROXY),
    ('for="unknown:80"', PROXY),
    # section 7.1
    ("for=192.0.2.43, for=127.0.0.1", "ip:192.0.2.43"),
    ('for=192.0.2.43,for="[::1]";by=203.0.113.60', "ip:192.0.2.43"),
    # section 7.4
    ('for=192.0.2.43, for="[2001:db8:cafe::17]"', "ip:2001:db8:cafe::/64"),
    # section 7.5
    ("for=_hidden, for=127.0.0.1", PROXY),
]


@pytest.mark.parametrize(("value", "expected"), RFC_7239, ids=lambda text: text[:60])
def test_the_examples_of_rfc_7239(value: str, expected: str) -> None:
    assert client("Forwarded", value, LOCAL) == expected


HAPROXY = [
    ("proto=http;for=127.0.0.2", "ip:127.0.0.2"),
    ('by="127.0.0.3:10";for="127.0.0.2:_id"', "ip:127.0.0.2"),
    ('for="unknown:132";host="[::1]:65535";by="_obfs:_port";proto=https', PROXY),
    ('for="198.51.100.1";host=v.test', "ip:198.51.100.1"),
    ('fore="unknown:132"', PROXY),
    ("proto=http;proto=http", PROXY),
    ('"', PROXY),
    ('for="[2001:db8::1]:"', PROXY),
    ('for="[2001:db8::1]:3"', "ip:2001:db8::/64"),
    ('proto=http;for="[2001:db8::1]:_id"', "ip:2001:db8::/64"),
    ("for=127.9.0.1", "ip:127.9.0.1"),
]


@pytest.mark.parametrize(("value", "expected"), HAPROXY)
def test_what_haproxy_writes_and_checks(value: str, expected: str) -> None:
    assert client("Forwarded", value, LOCAL) == expected


@pytest.mark.parametrize(
    ("client_sends", "haproxy_sees"),
    [
        (None, "10.0.0.128"),
        ("127.0.0.1", "10.0.0.128"),
        ("127.0.0.1, 198.51.100.1", "2001:db8:1f90::1"),
        ('"', "10.0.0.128"),
    ],
)
def test_haproxy_appends_a_line_to_what_the_client_sent(
    client_sends: str | None, haproxy_sees: str
) -> None:
    value = ",".join(filter(None, [client_sends, haproxy_sees]))
    expected = "2001:db8:1f90::/64" if ":" in haproxy_sees else haproxy_sees
    assert client("X-Forwarded-For", value, ("127.0.0.1",)) == f"ip:{expected}"


CHAIN = (
    'for="_gazonk", For="[2001:db8:cafe::17]:4711", '
    "for=192.0.2.60;proto=http;by=203.0.113.43, {last}"
)

PLAY_FORWARDED = [
    (LOCAL, 'for=192.0.2.43;proto=https, for="[::1]"', "ip:192.0.2.43"),
    ((), CHAIN.format(last="for=192.0.2.43, for=127.0.0.1"), PROXY),
    (
        LOCAL,
        CHAIN.format(last="for=192.0.2.43, for=198.51.100.17, for=127.0.0.1"),
        "ip:198.51.100.17",
    ),
    (LOCAL, CHAIN.format(last="for=192.0.2.43, for=[::1]"), "ip:192.0.2.43"),
    (NETWORK, CHAIN.format(last="for=192.168.1.10, for=127.0.0.1"), "ip:192.0.2.60"),
    (LOCAL, CHAIN.format(last="for=192.168.1.10, for=127.0.0.1"), "ip:192.168.1.10"),
    (LOCAL, "For=[2001:db8:cafe::17]:4711", "ip:2001:db8:cafe::/64"),
    (LOCAL, 'for="[8F:F3B::FF]:9000"', "ip:8f:f3b::/64"),
    (LOCAL, 'for="192.0.2.43:_hidden"', "ip:192.0.2.43"),
    (
        (*LOCAL, "::ffff:123.123.123.123"),
        'For="[::ffff:99.99.99.99]:4711", For="[::ffff:123.123.123.123]"',
        "ip:99.99.99.99",
    ),
    (NETWORK, 'for="_gazonk", for=192.168.1.10, for=127.0.0.1', "ip:192.168.1.10"),
    (NETWORK, "for=unknown, for=192.168.1.10, for=127.0.0.1", "ip:192.168.1.10"),
    (NETWORK, "for=unknown:1234, for=192.168.1.10, for=127.0.0.1", "ip:192.168.1.10"),
    (NETWORK, "for=203.0.113.43, for=Unknown, for=192.168.1.10", "ip:192.168.1.10"),
    (LOCAL, 'for=""', PROXY),
    (NETWORK, "for=, for=, for=192.168.1.10, for=127.0.0.1", "ip:192.168.1.10"),
    (NETWORK, "for, for=192.168.1.10, for=127.0.0.1", "ip:192.168.1.10"),
    (NETWORK, "for==, for=192.168.1.10, for=127.0.0.1", "ip:192.168.1.10"),
    (NETWORK, 'for=", for=192.168.1.10, for=127.0.0.1', "ip:192.168.1.10"),
    (NETWORK, 'for="", for=192.168.1.10, for=127.0.0.1', "ip:192.168.1.10"),
    (NETWORK, 'for=""", for=192.168.1.10, for=127.0.0.1', "ip:192.168.1.10"),
    (NETWORK, "for=192.168.1.12, for=192.168.1.10, for=127.0.0.1", "ip:192.168.1.12"),
    (LOCAL, 'for="_bad,stillbad";proto=https, for=203.0.113.43', "ip:203.0.113.43"),
    (LOCAL, 'for=203.0.113.43, for="_bad;stillbad"', PROXY),
    (LOCAL, 'for=203.0.113.43, for="_bad=stillbad"', PROXY),
    (LOCAL, "!#$%&'*+-.^_`|~=value;for=203.0.113.43", "ip:203.0.113.43"),
    (LOCAL, ";for=203.0.113.43;;proto=https;", "ip:203.0.113.43"),
    (LOCAL, ", , for=203.0.113.43, , for=127.0.0.1, ,", "ip:203.0.113.43"),
    (LOCAL, ", ,,,", PROXY),
    (LOCAL, "for=203.0.113.43;For=198.51.100.17", PROXY),
    (
        NETWORK,
        "for=203.0.113.43, for=198.51.100.17;for=192.0.2.43, for=192.168.1.43, for=127.0.0.1",
        "ip:192.168.1.43",
    ),
    (LOCAL, "for=203.0.113.43, for=127.0.0.1;for=192.0.2.43", PROXY),
    (LOCAL, "for=203.0.113.43; \t  proto=https; extension=value", "ip:203.0.113.43"),
    (LOCAL, "for =203.0.113.43", PROXY),
    (LOCAL, "for=203.0.113.43;by=192.0.2.10;proto=https", "ip:203.0.113.43"),
    (LOCAL, "host=public.example", PROXY),
    (LOCAL, "for=203.0.113.43;host=client.example, host=proxy.example", PROXY),
]


@pytest.mark.parametrize(("trusted", "value", "expected"), PLAY_FORWARDED)
def test_the_forwarded_headers_of_play(trusted: tuple[str, ...], value: str, expected: str) -> None:
    assert client("Forwarded", value, trusted) == expected


PLAY_X_FORWARDED_FOR = [
    (LOCAL, "192.0.2.43, ::1, 127.0.0.1, [::1]", "ip:192.0.2.43"),
    (LOCAL, "192.0.2.43, ::1", "ip:192.0.2.43"),
    (NETWORK, "203.0.113.43, 192.168.1.43", "ip:203.0.113.43"),
    (NETWORK, "192.168.1.2, 192.168.1.3", "ip:192.168.1.2"),
    (("0.0.0.0/0",), "203.0.113.43, 192.168.1.43", "ip:203.0.113.43"),
    (LOCAL, "203.0.113.43", "ip:203.0.113.43"),
    (LOCAL, "???", PROXY),
    (("127.0.0.1",), "::1", "ip:::/64"),
    ((*LOCAL, "2001:db8:cafe::17"), "192.0.2.43, 2001:db8:cafe::17", "ip:192.0.2.43"),
    (LOCAL, '192.0.2.43, "::1", ::1, "[::1]", [::1]', "ip:192.0.2.43"),
    (LOCAL, '"203.0.113.43" \t,\t "127.0.0.1"', "ip:203.0.113.43"),
    (NETWORK, '192.168.1.12, "192.168.1.10", 127.0.0.1', "ip:192.168.1.12"),
    (LOCAL, ",,", PROXY),
    (LOCAL, ",,192.0.2.43", "ip:192.0.2.43"),
    (LOCAL, ",".join(["198.51.100.1" + " \t" * 32] * 2048 + ["192.0.2.43"]), "ip:192.0.2.43"),
    # of our own: a quote that is never closed, and one that is closed by somebody else
    (LOCAL, '"198.51.100.1, 192.0.2.43', "ip:192.0.2.43"),
    (LOCAL, '"198.51.100.1, 192.0.2.43"', PROXY),
]


@pytest.mark.parametrize(
    ("trusted", "value", "expected"), PLAY_X_FORWARDED_FOR, ids=lambda part: str(part)[:60]
)
def test_the_x_forwarded_for_headers_of_play(
    trusted: tuple[str, ...], value: str, expected: str
) -> None:
    assert client("X-Forwarded-For", value, trusted) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        *("127.0.0.1/-1", "127.0.0.1/33", "127.0.0.1/99999999999", "127.0.0.1/", "127.0.0.1/+1"),
        *("::1/-1", "::1/129", "\uff11\uff12\uff17.\uff10.\uff10.\uff11"),
        "\u0661\u0662\u0667.\u0660.\u0660.\u0661",
    ],
)
def test_a_proxy_that_is_no_address_stops_the_start(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"write 192\.0\.2\.7"):
        ClientIP(trusted_proxies=(wrong,))


@pytest.mark.parametrize("zone", ["1", "eth0", "25eth0"])
def test_a_proxy_with_a_zone_stops_the_start(zone: str) -> None:
    with pytest.raises(ValueError, match=r"has a zone.*write fe80::1,"):
        ClientIP(trusted_proxies=(f"fe80::1%{zone}",))
