"""A limit for each account, by a field of the log-in form, over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import NamedTuple

import pytest

from conftest import shared_folder
from support.servers import Response, Server, gunicorn

URLENCODED = "application/x-www-form-urlencoded"
MAX_BYTES = 65536  # the default


class Page(NamedTuple):
    """A new path with a rule of its own, so that no test uses the counters of another."""

    server: Server
    case: str

    def post(
        self,
        body: str | bytes | Iterable[bytes],
        source: str = "",
        *,
        to: str = "login",
        **headers: str,
    ) -> Response:
        """Post a body. If it is a list, each item is sent as a chunk."""
        return self.server.request(
            "POST",
            f"/{to}/{self.case}",
            body=body,  # type: ignore[arg-type]
            source=source,
            headers={"Content-Type": URLENCODED, **headers},
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("form")
    rules = "".join(
        f"  - {{path: [/login/{case}, /echo/{case}], key: form:email, limits: 5 per minute}}\n"
        for case in range(100)
    )
    rules += (
        "  - path: /echo/guarded\n"
        "    limits: [2 per minute, {limit: 5 per minute, key: 'form:email'}]\n"
        "  - path: /echo/everything\n"
        "    limits:\n"
        "      - 100 per minute\n"
        "      - {limit: 5 per minute, key: 'form:email'}\n"
        "      - {limit: 5 per minute, key: 'json:email'}\n"
    )
    (folder / "throttle.yaml").write_text(f"storage: {shared_folder(folder)}\nrules:\n{rules}")
    with gunicorn("form_site:application", workers=4, cwd=folder) as server:
        yield server


_cases = count()


@pytest.fixture
def page(server: Server) -> Page:
    return Page(server, str(next(_cases)))


def test_an_account_has_five_tries_however_many_addresses(
    page: Page, new_client: Callable[[], str]
) -> None:
    spellings = [
        "email=ann%40example.com&password=1",
        "password=2&email=ann%40example.com",
        "email=ANN%40Example.com&password=3",
        "email=+ann%40example.com%20&password=4",
        "%65mail=%EF%BC%A1nn%40example.com&password=5",
        "email=ann@example.com&password=6",
    ]
    answers = [page.post(spelling, new_client()) for spelling in spellings]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert answers[2].text == "ANN@Example.com", "the application does not get what was sent"
    assert answers[3].text == " ann@example.com "


def test_accounts_at_one_address_do_not_share(page: Page, new_client: Callable[[], str]) -> None:
    address = new_client()
    for account in ("ann", "bob"):
        found = [page.post(f"email={account}", address).status for _ in range(6)]
        assert found == [200] * 5 + [429]


def test_a_doubled_field_is_charged_to_both(page: Page, new_client: Callable[[], str]) -> None:
    tries = [page.post(f"email=nobody{n}&email=ann", new_client()).status for n in range(6)]
    assert tries == [200] * 5 + [429]
    assert page.post("email=ann", new_client()).status == 429
    assert page.post("email=nobody0", new_client()).status == 200


UNREADABLE = {
    "padded": ("email=ann{n}&pad=" + "x" * MAX_BYTES, URLENCODED),
    "JSON": ('{{"email": "ann{n}"}}', "application/json"),
    "multipart without an end": (
        '--b\r\nContent-Disposition: form-data; name="email"\r\n\r\nann{n}\r\n',
        "multipart/form-data; boundary=b",
    ),
    "another charset": ("email=ann{n}", f"{URLENCODED}; charset=utf-7"),
    "five values": ("email=1&email=2&email=3&email=4&email=ann{n}", URLENCODED),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
@pytest.mark.parametrize(("form", "content_type"), UNREADABLE.values(), ids=UNREADABLE)
def test_the_unreadable_share_one_counter_whoever_sends_them(
    page: Page, form: str, content_type: str, chunked: bool, new_client: Callable[[], str]
) -> None:
    def send(n: int) -> int:
        body = form.format(n=n).encode()
        sent = [body[:20], body[20:]] if chunked else body
        return page.post(sent, new_client(), to="echo", **{"Content-Type": content_type}).status

    assert [send(n) for n in range(6)] == [200] * 5 + [429]
    assert page.post("email=ann0", new_client()).status == 200


@pytest.mark.parametrize(
    "size", [0, 1, 100, MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1, 3_000_000], ids="{} bytes".format
)
@pytest.mark.parametrize("chunk", [None, 7000], ids=["with a length", "chunked"])
def test_the_application_gets_the_whole_body(page: Page, size: int, chunk: int | None) -> None:
    body = (b"email=ann&pad=" + bytes(n % 251 for n in range(size)))[:size]
    pieces = [body[at : at + chunk] for at in range(0, size, chunk)] if chunk else body
    answer = page.post(pieces, to="echo")
    assert answer.status == 200
    assert answer.body == body


def test_a_chunked_form_is_charged_to_its_account(
    page: Page, new_client: Callable[[], str]
) -> None:
    answers = [page.post([b"ema", b"il=an", b"n"], new_client()) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert answers[0].text == "ann"
    assert page.post("email=ann", new_client()).status == 429, "another counter with a length"


def test_a_form_without_the_field_is_charged_to_its_address(
    page: Page, new_client: Callable[[], str]
) -> None:
    address = new_client()
    found = [page.post("mail=ann", address, to="echo").status for _ in range(6)]
    assert found == [200] * 5 + [429]
    assert page.post("mail=ann", new_client(), to="echo").status == 200


ENCODINGS = {
    "urlencoded": ("email=ann{n}", URLENCODED),
    "multipart": (
        '--b\r\nContent-Disposition: form-data; name="email"\r\n\r\nann{n}\r\n--b--\r\n',
        "multipart/form-data; boundary=b",
    ),
    "JSON": ('{{"email": "ann{n}"}}', "application/json"),
}


@pytest.mark.parametrize(("form", "content_type"), ENCODINGS.values(), ids=ENCODINGS)
def test_log_ins_of_many_accounts_close_the_door_to_none(
    server: Server, form: str, content_type: str, new_client: Callable[[], str]
) -> None:
    page = Page(server, "everything")

    def send(account: object) -> int:
        body = form.format(n=f"-{content_type[:5]}-{account}")
        headers = {"Content-Type": content_type}
        return page.post(body, new_client(), to="echo", **headers).status

    assert [send(n) for n in range(12)] == [200] * 12
    assert [send("one") for _ in range(6)] == [200] * 5 + [429]


def test_a_client_over_its_limit_is_answered_without_its_body(
    server: Server, new_client: Callable[[], str]
) -> None:
    address = new_client()
    page = Page(server, "guarded")
    assert [page.post("email=ann", address, to="echo").status for _ in range(2)] == [200] * 2
    with socket.create_connection(
        server.host_and_port, timeout=30, source_address=(address, 0)
    ) as client:
        client.sendall(
            b"POST /echo/guarded HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        )
        answer = client.recv(4096)  # of the body nothing is ever sent
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After: " in answer
