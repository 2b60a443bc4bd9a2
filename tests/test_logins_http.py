"""A limit by user, on real sites with log-ins, over HTTP and 4 gunicorn workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import pytest

from conftest import shared_folder
from support.servers import ROOT, Response, Server, gunicorn

SECRET = "only these sites know it"
HOME, CAFE = "127.0.0.2", "127.0.0.3"
USERS = [f"user{number}" for number in range(20)]

RULES = """
storage: "{storage}"
session: {session}
rules:
  - {{path: /export, key: session-user, limits: 5 per minute}}
"""
FLASK = '{kind: flask, secret_key: "${SECRET_KEY}"}'
DJANGO = '{kind: django, secret_key: "${SECRET_KEY}"}'
RECIPE = "{kind: python:throttle_user:user}"


class Site:
    """A site, and names of users that nobody has used on it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._users = iter(USERS)

    def new_user(self) -> str:
        return next(self._users)

    def log_in(self, user: str, source: str) -> str:
        """Log in, and return the Cookie header that a browser would send afterwards."""
        answer = self.server.post("/login", f"user={user}&password=demo", source=source)
        assert answer.status == 200, self.server.log
        return answer.headers["Set-Cookie"].partition(";")[0]

    def export(self, source: str, cookie: str = "") -> Response:
        return self.server.get("/export", source=source, headers={"Cookie": cookie})

    def statuses(self, source: str, cookie: str = "", times: int = 6) -> list[int]:
        return [self.export(source, cookie).status for _ in range(times)]


def recipe() -> str:
    """The source in docs/keys.md of the function that asks Django for the user of a session."""
    text = (ROOT / "docs" / "keys.md").read_text()
    (code,) = re.findall(
        r"^```python\n(# throttle_user\.py\n.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    return str(code)


@contextmanager
def serving(module: str, session: str, folder: Path, **env: str) -> Iterator[Site]:
    rules = RULES.format(storage=shared_folder(folder), session=session)
    (folder / "throttle.yaml").write_text(rules)
    (folder / "throttle_user.py").write_text(recipe())
    env = {"SECRET_KEY": SECRET, **env}
    if "django" in module:
        subprocess.run(
            [sys.executable, "-m", module, *USERS],
            check=True,
            cwd=folder,
            env={**os.environ, **env, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        )
    with gunicorn(f"{module}:application", workers=4, cwd=folder, env=env) as server:
        yield Site(server)


SITES: dict[str, tuple[str, str, dict[str, str]]] = {
    "Flask": ("logins.flask_site", FLASK, {}),
    "Flask-Login": ("logins.flask_login_site", FLASK, {}),
    "Django": ("logins.django_site", DJANGO, {"SESSION_ENGINE": "signed_cookies"}),
    "Django, sessions in its database": ("logins.django_site", RECIPE, {"SESSION_ENGINE": "db"}),
}


@pytest.fixture(scope="module", params=SITES.values(), ids=list(SITES))
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    module, session, env = request.param
    with serving(module, session, tmp_path_factory.mktemp("site"), **env) as site:
        yield site


def test_the_limit_follows_the_user_from_one_address_to_another(site: Site) -> None:
    user = site.new_user()
    cookie = site.log_in(user, HOME)
    found = [site.export(source, cookie) for source in islice(cycle([HOME, CAFE]), 7)]
    assert [answer.status for answer in found] == [200] * 5 + [429] * 2
    assert {answer.text for answer in found[:5]} == {user}


def test_another_login_of_the_same_user_is_the_same_user(site: Site) -> None:
    user = site.new_user()
    phone, laptop = site.log_in(user, CAFE), site.log_in(user, HOME)
    found = [site.export(HOME, cookie).status for cookie in islice(cycle([phone, laptop]), 6)]
    assert found == [200] * 5 + [429]


def test_two_users_on_one_address_do_not_share(site: Site) -> None:
    ann, bob = (site.log_in(site.new_user(), HOME) for _ in range(2))
    assert site.statuses(HOME, ann) == [200] * 5 + [429]
    assert site.statuses(HOME, bob) == [200] * 5 + [429]


def test_who_logged_out_is_counted_by_address(site: Site, new_client: Callable[[], str]) -> None:
    address = new_client()
    cookie = site.log_in(site.new_user(), address)
    assert site.statuses(address, cookie) == [200] * 5 + [429]
    answer = site.server.post("/logout", source=address, headers={"Cookie": cookie})
    after = answer.headers["Set-Cookie"].partition(";")[0]
    assert after != cookie
    assert site.statuses(address, after) == [401] * 5 + [429]


FORGERIES: dict[str, Callable[[str], str]] = {
    "truncated": lambda cookie: cookie[:-3],
    "another signature": lambda cookie: cookie[:-6] + "AAAAAA",
    "another content": lambda cookie: cookie.replace("=", "=A", 1),
    "no signature": lambda cookie: cookie[: max(cookie.rfind("."), cookie.rfind(":"))],
    "made up": lambda cookie: cookie.partition("=")[0] + "=eyJ1c2VyX2lkIjoiYW5uIn0.x.y",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_cookie_counts_as_its_address_and_never_as_the_user(
    site: Site, forge: Callable[[str], str], new_client: Callable[[], str]
) -> None:
    victim, attacker = site.log_in(site.new_user(), HOME), new_client()
    assert site.statuses(attacker, forge(victim)) == [401] * 5 + [429]
    assert site.statuses(attacker, times=1) == [429], "the address was not charged"
    assert site.statuses(HOME, victim) == [200] * 5 + [429], "the victim was charged"


def test_the_logs_show_neither_the_key_nor_a_cookie(
    site: Site, new_client: Callable[[], str]
) -> None:
    address = new_client()
    cookie = site.log_in(site.new_user(), address)
    for number in range(50):  # more than enough for the warning that no cookie can be verified
        site.export(address, f"{cookie}-{number}")
    site.statuses(address, cookie)
    assert SECRET not in site.server.log
    assert cookie.partition("=")[2][:20] not in site.server.log
