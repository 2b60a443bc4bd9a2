"""Real servers on a unix socket, each of which has its own idea of the peer's address there."""

from __future__ import annotations

import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.servers import ROOT, Server, gunicorn, running


def serving(name: str, path: Path) -> AbstractContextManager[Server]:
    if name.startswith("gunicorn "):
        worker = f"--worker-class={name.partition(' ')[2]}"
        return gunicorn("peers:application", worker, workers=1, unix_socket=path)
    command = [sys.executable, str(ROOT / "tests" / "peers.py"), name, str(path)]
    return running(command, ready=lambda _: str(path) if accepts(path) else None)


def accepts(path: Path) -> bool:
    """Whether a server listens there."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        *(("gunicorn sync", "ip:192.0.2.1"), ("gunicorn gevent", "ip:192.0.2.1")),
        *(("gunicorn gevent_pywsgi", "ip:192.0.2.1"), ("gevent", "ip:192.0.2.1")),
        *(("Werkzeug", "ip:192.0.2.1"), ("waitress", "ip:unix")),
        ("waitress that is told", "ip:192.0.2.1"),
    ],
)
def test_a_proxy_on_a_unix_socket_is_believed(server: str, expected: str, tmp_path: Path) -> None:
    with serving(server, tmp_path / "socket") as site:
        headers = {"X-Forwarded-For": "203.0.113.9, 192.0.2.1"}
        assert site.get("/", headers=headers).text == expected
        assert site.get("/").text == "ip:unix"
        if server == "waitress":
            assert "trusted_proxy='localhost'" in site.log
