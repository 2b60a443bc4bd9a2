"""Who the client is behind a real nginx, on TCP and on a unix socket."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import shared_folder
from support.servers import Server, gunicorn, running

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))

pytestmark = pytest.mark.skipif(not NGINX, reason="needs nginx: sudo apt-get install nginx-light")

CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass {upstream};
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""

RULES = """
storage: "{storage}"
default_limits: 5 per minute
{client_ip}
"""


class Site(NamedTuple):
    nginx: Server
    gunicorn: Server

    def statuses(self, client: str, *, times: int = 1, **headers: str) -> list[int]:
        """The statuses of so many answers that a client gets through nginx."""
        return [self.nginx.get("/", source=client, headers=headers).status for _ in range(times)]


@contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[Server]:
    """An nginx in front of ``upstream``, on a free port of 127.0.0.1."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    config = folder / "nginx.conf"
    # As root, nginx would run its worker as a user who may not enter the tests' folders.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        CONFIG.format(user=user, folder=folder, host=host, port=port, upstream=upstream)
    )
    with (
        listener,
        running(
            [str(NGINX), "-p", str(folder), "-c", str(config)],
            ready=lambda log: (host, port) if "start worker process " in log else None,
            # nginx inherits its socket in the way of its own upgrades, so that nobody else takes
            # the port meanwhile.
            env={"NGINX": f"{listener.fileno()};"},
            pass_fds=(listener.fileno(),),
        ) as server,
    ):
        yield server


@contextmanager
def serving(folder: Path, client_ip: str, *, unix: bool = False) -> Iterator[Site]:
    """The demo application, with 4 gunicorn workers, behind nginx."""
    rules = RULES.format(storage=shared_folder(folder), client_ip=client_ip)
    (folder / "throttle.yaml").write_text(rules)
    unix_socket = folder / "gunicorn.sock" if unix else None
    with gunicorn("served:application", cwd=folder, unix_socket=unix_socket) as workers:
        upstream = f"unix:{unix_socket}:" if unix else "{}:{}".format(*workers.host_and_port)
        with nginx(f"http://{upstream}", folder) as proxy:
            yield Site(proxy, workers)


@pytest.fixture(scope="module", params=["tcp", "unix"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """nginx is trusted: on TCP since the rule file lists it, on a unix socket without being
    listed."""
    folder = tmp_path_factory.mktemp(request.param)
    unix = request.param == "unix"
    client_ip = "" if unix else "client_ip: {trusted_proxies: [127.0.0.1]}"
    with serving(folder, client_ip, unix=unix) as site:
        yield site


def test_two_clients_are_two(site: Site, new_client: Callable[[], str]) -> None:
    ann, bob = new_client(), new_client()
    assert site.statuses(ann, times=6) == [200] * 5 + [429]
    assert site.statuses(bob, times=6) == [200] * 5 + [429]


FORGERIES = {
    "another's address": {"X-Forwarded-For": "{victim}"},
    "a list of addresses": {"X-Forwarded-For": "192.0.2.7, {victim}"},
    "the proxy behind another": {"X-Forwarded-For": "{victim}, 127.0.0.1"},
    "mapped into IPv6": {"X-Forwarded-For": "::ffff:{victim}"},
    "a unix socket": {"X-Forwarded-For": "{victim}, unix:"},
    "garbage": {"X-Forwarded-For": '"{victim}, ,;\t%00'},
    "the standard's header": {"Forwarded": "for={victim}"},
    "another header": {"X-Real-IP": "{victim}"},
    "the same with an underscore": {"X_Forwarded_For": "{victim}"},
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_header_is_not_believed(
    site: Site, forgery: dict[str, str], new_client: Callable[[], str]
) -> None:
    attacker, victim = new_client(), new_client()
    headers = {name: value.format(victim=victim) for name, value in forgery.items()}
    assert site.statuses(attacker, times=6, **headers) == [200] * 5 + [429]
    assert site.statuses(victim) == [200], "the victim was charged for it"


def test_a_new_forgery_each_time_gains_nothing(site: Site, new_client: Callable[[], str]) -> None:
    attacker = new_client()
    forged = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(8)]
    found = [site.statuses(attacker, times=1, **headers)[0] for headers in forged]
    assert found == [200] * 5 + [429] * 3


def test_who_goes_round_nginx_is_not_believed(
    tmp_path: Path, new_client: Callable[[], str]
) -> None:
    attacker, victim = new_client(), new_client()
    with serving(tmp_path, "client_ip: {trusted_proxies: [127.0.0.1]}") as site:
        forged = {"X-Forwarded-For": victim}
        found = [site.gunicorn.get("/", source=attacker, headers=forged) for _ in range(6)]
        assert [response.status for response in found] == [200] * 5 + [429]
        assert site.statuses(victim) == [200]


def test_an_nginx_that_is_not_trusted_makes_all_one_client_and_the_log_says_what_to_write(
    tmp_path: Path, new_client: Callable[[], str]
) -> None:
    with serving(tmp_path, "") as site:
        found = [site.statuses(new_client())[0] for _ in range(6)]
        assert found == [200] * 5 + [429]
        log = site.gunicorn.log
    remedy = "write client_ip: {trusted_proxies: [127.0.0.1], header: X-Forwarded-For}"
    said = log.count(remedy)
    assert 1 <= said <= 4, "not once a worker"
    assert "127.0.0.1 sends X-Forwarded-For and is not a trusted proxy" in log
