"""An application behind the middleware is served as without it, exactly as PEP 3333 says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug.datastructures import Headers
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import create_environ

from frameworks import APPLICATIONS, PROGRESS, WSGI
from support.servers import Server, gunicorn, running
from wsgi_throttle import Throttle

LIMITED = {
    "storage": "memory://",
    "rules": [
        {"name": "page", "path": "/page", "limits": "2 per minute"},
        {"name": "stream", "path": "/stream", "limits": "1 per minute"},
        {"name": "free", "path": "/free", "exempt": True},
    ],
}

CHECKED_BY: dict[str, Callable[[WSGI], WSGI]] = {
    "wsgiref": validator,
    "werkzeug": LintMiddleware,
    "nobody": lambda app: app,
}


class Answer:
    """The server's side of one request: the status, and what was written and sent so far."""

    def __init__(self, app: WSGI, path: str, method: str = "GET", **environ: Any) -> None:
        self.started: list[tuple[str, Headers]] = []
        self.written: list[bytes] = []
        environ = {**create_environ(path, method=method), "REMOTE_ADDR": "192.0.2.1", **environ}
        environ["wsgi.errors"] = sys.stderr
        self.iterable: Iterable[bytes] = app(environ, self._start_response)
        self.iterator = iter(self.iterable)

    def _start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        assert exc_info or not self.started
        self.started.append((status, Headers(headers)))
        return self.written.append

    @property
    def status(self) -> str:
        return self.started[-1][0]

    @property
    def headers(self) -> Headers:
        return self.started[-1][1]

    def close(self) -> None:
        if hasattr(self.iterable, "close"):
            self.iterable.close()

    def read(self) -> bytes:
        body = b"".join(self.iterator)
        self.close()
        return b"".join(self.written) + body


@pytest.fixture(params=APPLICATIONS)
def app(request: pytest.FixtureRequest) -> WSGI:
    PROGRESS.clear()
    return APPLICATIONS[request.param]()


@pytest.fixture(params=CHECKED_BY)
def limited(request: pytest.FixtureRequest, app: WSGI) -> Iterator[WSGI]:
    """The application behind the middleware, with a WSGI checker on each side of the middleware."""
    check = CHECKED_BY[request.param]
    throttle = Throttle(check(app), LIMITED)
    yield check(throttle)
    throttle.close()


def ours(headers: Headers) -> dict[str, str]:
    names = ("ratelimit", "retry-after", "cache-control")
    return {name: value for name, value in headers.items() if any(n in name.lower() for n in names)}


def test_a_page_is_served_with_headers_until_it_is_limited(limited: WSGI) -> None:
    for remaining in ("1", "0"):
        answer = Answer(limited, "/page")
        assert answer.read() == b"page"
        assert answer.status == "200 OK"
        headers = ours(answer.headers)
        assert headers.pop("X-RateLimit-Reset").isdigit()
        assert headers.pop("RateLimit").startswith(f'"page";r={remaining};t=')
        assert headers == {
            "X-RateLimit-Limit": "2",
            "X-RateLimit-Remaining": remaining,
            "RateLimit-Policy": '"page";q=2;w=60',
        }
    answer = Answer(limited, "/page")
    assert b'"status":429' in answer.read().replace(b" ", b"")
    assert answer.status == "429 Too Many Requests"
    headers = ours(answer.headers)
    assert headers.pop("X-RateLimit-Reset").isdigit()
    assert headers.pop("RateLimit") == f'"page";r=0;t={headers["Retry-After"]}'
    assert 58 <= int(headers.pop("Retry-After")) <= 60
    assert headers == {
        "X-RateLimit-Limit": "2",
        "X-RateLimit-Remaining": "0",
        "RateLimit-Policy": '"page";q=2;w=60',
        "Cache-Control": "no-store",
    }


def test_a_stream_is_never_buffered(limited: WSGI) -> None:
    answer = Answer(limited, "/stream")
    for number, word in enumerate(["one", "two", "three"], start=1):
        assert next(answer.iterator) == word.encode()
        assert ["one", "two", "three"][:number] == PROGRESS
    assert answer.read() == b""
    assert PROGRESS == ["one", "two", "three", "closed"]
    assert answer.headers["X-RateLimit-Remaining"] == "0"


def test_a_stream_is_closed_when_the_client_has_gone(limited: WSGI) -> None:
    answer = Answer(limited, "/stream")
    next(answer.iterator)
    answer.close()
    assert PROGRESS == ["one", "closed"]


def test_a_refused_stream_never_starts(limited: WSGI) -> None:
    Answer(limited, "/stream").read()
    PROGRESS.clear()
    answer = Answer(limited, "/stream")
    answer.read()
    assert answer.status == "429 Too Many Requests"
    assert PROGRESS == []


def test_a_body_reaches_the_application_whole(limited: WSGI) -> None:
    sent = bytes(range(256)) * 1000
    environ = {
        "wsgi.input": BytesIO(sent),
        "CONTENT_LENGTH": str(len(sent)),
        "CONTENT_TYPE": "application/octet-stream",
    }
    assert Answer(limited, "/echo", "POST", **environ).read() == sent


def test_the_applications_own_404_is_untouched(limited: WSGI) -> None:
    answer = Answer(limited, "/nowhere")
    answer.read()
    assert answer.status.startswith("404 ")
    assert ours(answer.headers) == {}


def test_head_of_a_refused_page_has_headers_and_no_body(app: WSGI) -> None:
    # Werkzeug's lint wants a Content-Length of 0 for HEAD, which contradicts RFC 9110 section 8.6.
    limited = validator(Throttle(validator(app), LIMITED))
    for _ in range(2):
        Answer(limited, "/page").read()
    answer = Answer(limited, "/page", "HEAD")
    assert answer.read() == b""
    assert answer.status == "429 Too Many Requests"
    assert "Retry-After" in answer.headers


# --- what PEP 3333 allows and few applications do -------------------------------------------------


def start_late(environ: dict[str, Any], start_response: WSGI) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"late"


def start_again(environ: dict[str, Any], start_response: WSGI) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise LookupError("found out too late")
    except LookupError:
        start_response("503 Later", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"again"]


def write(environ: dict[str, Any], start_response: WSGI) -> list[bytes]:
    send = start_response("200 OK", [("Content-Type", "text/plain")])
    send(b"writ")
    return [b"ten"]


@pytest.mark.parametrize("check", CHECKED_BY.values(), ids=CHECKED_BY)
@pytest.mark.parametrize(
    ("app", "status", "body"),
    [(start_late, "200 OK", b"late"), (start_again, "503 Later", b"again")],
    ids=["start_response comes with the first chunk", "start_response comes twice"],
)
def test_odd_but_allowed(app: WSGI, status: str, body: bytes, check: WSGI) -> None:
    answer = Answer(check(Throttle(check(app), LIMITED)), "/page")
    assert answer.read() == body
    assert answer.status == status
    assert answer.headers.getlist("X-RateLimit-Remaining") == ["1"]


def test_write_is_the_servers_own() -> None:
    # Without the checkers, since they warn about every use of write().
    answer = Answer(Throttle(write, LIMITED), "/page")
    assert answer.written == [b"writ"]
    assert answer.read() == b"written"
    assert answer.headers["X-RateLimit-Remaining"] == "1"


def test_what_the_application_raises_is_the_servers_to_see() -> None:
    def broken(environ: dict[str, Any], start_response: WSGI) -> list[bytes]:
        raise LookupError("the application's own")

    with pytest.raises(LookupError, match="the application's own"):
        Answer(Throttle(broken, LIMITED), "/page")


def test_an_exempt_path_gets_the_very_iterable_of_the_application() -> None:
    made = [b"file"]

    def application(environ: dict[str, Any], start_response: WSGI) -> list[bytes]:
        start_response("200 OK", [])
        return made

    # A server recognises its own wsgi.file_wrapper only if the middleware returns that very object.
    assert Answer(Throttle(application, LIMITED), "/free").iterable is made
    assert Answer(Throttle(application, LIMITED), "/page").iterable is made


# --- real servers --------------------------------------------------------------------------------


def module(framework: str) -> str:
    return f"""
from frameworks import APPLICATIONS
from wsgi_throttle import Throttle

application = Throttle(APPLICATIONS[{framework!r}](), {LIMITED!r})
"""


def waitress(cwd: Path, env: dict[str, str]) -> AbstractContextManager[Server]:
    def ready(log: str) -> tuple[str, int] | None:
        port = re.search(r"Serving on http://127\.0\.0\.1:(\d+)", log)
        return ("127.0.0.1", int(port[1])) if port else None

    command = [sys.executable, "-m", "waitress", "--listen=127.0.0.1:0", "limited:application"]
    return running(command, ready=ready, cwd=cwd, env=env)


def one_gunicorn(cwd: Path, env: dict[str, str]) -> AbstractContextManager[Server]:
    return gunicorn("limited:application", workers=1, cwd=cwd, env=env)


@pytest.mark.parametrize("serve", [one_gunicorn, waitress], ids=["gunicorn", "waitress"])
@pytest.mark.parametrize("framework", APPLICATIONS)
def test_a_stream_reaches_the_client_chunk_by_chunk(
    framework: str, serve: Callable[..., AbstractContextManager[Server]], tmp_path: Path
) -> None:
    (tmp_path / "limited.py").write_text(module(framework))
    with serve(tmp_path, {"GATES": str(tmp_path)}) as server:
        connection = server.connect()
        connection.request("GET", "/stream")
        for word in ("one", "two", "three"):
            (tmp_path / word).touch()
            if word == "one":  # the headers come with the first chunk
                response = connection.getresponse()
            assert response.read(len(word)) == word.encode()
        assert response.read() == b""
        connection.close()
        assert server.get("/stream").status == 429
        assert server.get("/page").text == "page"
