"""The user of a session, in the cookies of real Flask, Flask-Login and Django applications."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import flask
import flask_login
import pytest
from django.conf import global_settings as django_settings
from django.contrib.auth import SESSION_KEY as DJANGO_USER
from django.http.cookie import parse_cookie as django_cookies
from flask.sessions import SecureCookieSessionInterface
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import NoneAlgorithm, URLSafeTimedSerializer
from markupsafe import Markup
from werkzeug.test import Client
from werkzeug.wrappers import Request

from wsgi_throttle import Throttle
from wsgi_throttle.cli import main
from wsgi_throttle.clock import SECOND
from wsgi_throttle.identity import Identity, Session, key_function
from wsgi_throttle.identity.cookies import cookie_reader, django_cookie_reader
from wsgi_throttle.identity.signed_cookie import (
    FRAMEWORKS,
    MAX_CACHED,
    MAX_CACHED_LENGTH,
    SUSPICIOUS_FAILURES,
    SignedCookie,
    Verified,
)

KEY, OLD_KEY, WRONG_KEY = "current key, secret", "old key, secret", "somebody else's key"
ADDRESS = "192.0.2.1"
ANONYMOUS = f"ip:{ADDRESS}"


def user_of(session: Session, cookie_header: str | None, **environ: Any) -> str:
    """The key of a request that has this Cookie header."""
    find = key_function("session-user", Identity(session=session))
    request = {"REMOTE_ADDR": ADDRESS, **environ}
    if cookie_header is not None:
        request["HTTP_COOKIE"] = cookie_header
    first = find(request, {})
    assert find(request, {}) == first, "a cookie seen before is somebody else's"
    assert isinstance(first, str)
    return first


def flask_session(**changes: Any) -> Session:
    return Session(**{"kind": "flask", "secret_keys": (KEY,), **changes})


def flask_app(key: str = KEY, **config: Any) -> flask.Flask:
    app = flask.Flask("real")
    app.config.update(SECRET_KEY=key, **config)

    @app.post("/session")
    def fill() -> str:
        flask.session.update(flask.current_app.config["FILL"])
        flask.session.permanent = bool(flask.request.args.get("permanent"))
        return ""

    return app


def flask_cookie(content: dict[str, Any], app: flask.Flask | None = None, query: str = "") -> str:
    """The Cookie header that a browser sends after a visit to a real Flask application."""
    app = app or flask_app()
    app.config["FILL"] = content
    answer = app.test_client().post(f"/session{query}")
    return answer.headers["Set-Cookie"].partition(";")[0]


class OwnSalt(SecureCookieSessionInterface):
    salt = "own salt"


class TestFlask:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            pytest.param({"user_id": 42}, "session-user:42", id="a number"),
            pytest.param({"user_id": "42"}, "session-user:42", id="the same as text"),
            pytest.param({"_user_id": "ann"}, "session-user:ann", id="Flask-Login's name"),
            pytest.param(
                {"user_id": 1, "_user_id": "2"}, "session-user:1", id="the first name wins"
            ),
            pytest.param(
                {"user_id": None, "_user_id": "2"}, "session-user:2", id="null is passed by"
            ),
            pytest.param(
                {"user_id": ADDRESS}, f"session-user:{ADDRESS}", id="an id like an address"
            ),
            pytest.param(
                {"user_id": "a,b{c} %\u00e9"},
                "session-user:a%2Cb%7Bc%7D%20%25%C3%A9",
                id="an id of odd characters",
            ),
            pytest.param(
                {"user_id": uuid.UUID(int=5)}, f"session-user:{uuid.UUID(int=5).hex}", id="a UUID"
            ),
            pytest.param({"user_id": Markup("ann")}, "session-user:ann", id="Markup"),
            pytest.param({"user_id": "x", "big": "y" * 3000}, "session-user:x", id="compressed"),
            pytest.param(
                {"user_id": "x", "at": datetime(2024, 1, 1, tzinfo=timezone.utc), "t": (1, 2)},
                "session-user:x",
                id="tagged values beside it",
            ),
            pytest.param({"user_id": ""}, ANONYMOUS, id="an empty id"),
            pytest.param({"user_id": None}, ANONYMOUS, id="null"),
            pytest.param({"user_id": False}, ANONYMOUS, id="false"),
            pytest.param({"user_id": True}, ANONYMOUS, id="true"),
            pytest.param({"user_id": 4.2}, ANONYMOUS, id="a fraction"),
            pytest.param({"user_id": [1]}, ANONYMOUS, id="a list"),
            pytest.param({"user_id": {"id": 1}}, ANONYMOUS, id="a mapping"),
            pytest.param({"other": 1}, ANONYMOUS, id="nobody logged in"),
        ],
    )
    def test_the_user_of_a_real_session(self, content: dict[str, Any], expected: str) -> None:
        cookie = flask_cookie(content)
        assert cookie.startswith("session=.") or "big" not in content
        assert user_of(flask_session(), cookie) == expected

    def test_a_long_id_is_its_digest(self) -> None:
        one, two = (user_of(flask_session(), flask_cookie({"user_id": "x" * n})) for n in (99, 100))
        assert one.startswith("session-user:#")
        assert len(one) < 60
        assert one != two

    def test_a_name_may_lead_into_nested_mappings(self) -> None:
        cookie = flask_cookie({"auth": {"user": {"id": 7}}, "a.b": 8})
        assert user_of(flask_session(user=("auth.user.id",)), cookie) == "session-user:7"
        assert user_of(flask_session(user=("a.b",)), cookie) == "session-user:8"
        assert user_of(flask_session(user=("auth.user.id.more",)), cookie) == ANONYMOUS

    def test_flask_login_logs_in(self) -> None:
        app = flask.Flask("login")
        app.secret_key = KEY
        manager = flask_login.LoginManager(app)

        def load(user_id: str) -> Any:
            user = flask_login.UserMixin()
            user.id = user_id
            return user

        manager.user_loader(load)

        @app.post("/login")
        def login() -> str:
            flask_login.login_user(load("ann@example.com"))
            return ""

        @app.post("/logout")
        def logout() -> str:
            flask_login.logout_user()
            return ""

        client = app.test_client()
        cookie = client.post("/login").headers["Set-Cookie"].partition(";")[0]
        assert user_of(flask_session(), cookie) == "session-user:ann@example.com"
        cookie = client.post("/logout").headers["Set-Cookie"].partition(";")[0]
        assert user_of(flask_session(), cookie) == ANONYMOUS

    def test_keys_are_rotated(self) -> None:
        before = flask_cookie({"user_id": 1}, flask_app(OLD_KEY))
        during = flask_app(KEY, SECRET_KEY_FALLBACKS=[OLD_KEY])
        after = flask_cookie({"user_id": 2}, during)
        for keys in ((KEY, OLD_KEY), (OLD_KEY, KEY)):
            session = flask_session(secret_keys=keys)
            assert user_of(session, before) == "session-user:1"
            assert user_of(session, after) == "session-user:2"
        assert user_of(flask_session(), before) == ANONYMOUS

    def test_a_permanent_session(self) -> None:
        cookie = flask_cookie({"user_id": 1}, query="?permanent=1")
        assert user_of(flask_session(), cookie) == "session-user:1"

    def test_a_cookie_and_a_salt_of_its_own(self) -> None:
        app = flask_app(SESSION_COOKIE_NAME="sid")
        app.session_interface = OwnSalt()
        cookie = flask_cookie({"user_id": 1}, app)
        assert cookie.startswith("sid=")
        assert user_of(flask_session(cookie="sid", salt="own salt"), cookie) == "session-user:1"
        assert user_of(flask_session(cookie="sid"), cookie) == ANONYMOUS
        assert user_of(flask_session(salt="own salt"), cookie) == ANONYMOUS

    def test_a_session_ends_after_its_lifetime_and_not_before(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cookie = flask_cookie({"user_id": 1})
        real = time.time
        find = key_function("session-user", Identity(session=flask_session(lifetime_s=3600)))
        environ = {"REMOTE_ADDR": ADDRESS, "HTTP_COOKIE": cookie}
        for later, expected in [(0, "session-user:1"), (3590, "session-user:1"), (3610, ANONYMOUS)]:
            monkeypatch.setattr(time, "time", lambda later=later: real() + later)
            assert find(environ, {}) == expected, "remembered"
            assert user_of(flask_session(lifetime_s=3600), cookie) == expected, (
                "seen for the first time"
            )

    def test_flask_itself_agrees_on_the_lifetime(self, monkeypatch: pytest.MonkeyPatch) -> None:
        app = flask_app(PERMANENT_SESSION_LIFETIME=timedelta(hours=1))
        cookie = flask_cookie({"user_id": 1}, app)
        real = time.time
        for later in (3590, 3610):
            monkeypatch.setattr(time, "time", lambda later=later: real() + later)
            with app.test_request_context(headers={"Cookie": cookie}):
                flask_user = flask.session.get("user_id")
            ours = user_of(flask_session(lifetime_s=3600), cookie)
            assert ours == (f"session-user:{flask_user}" if flask_user else ANONYMOUS)


def resigned(key: str, content: dict[str, Any], **signer: Any) -> str:
    serializer = URLSafeTimedSerializer(
        key,
        salt=signer.pop("salt", "cookie-session"),
        signer_kwargs={"key_derivation": "hmac", **signer},
    )
    return "session=" + str(serializer.dumps(content))


def forgeries() -> Iterator[Any]:
    good = flask_cookie({"user_id": 1})
    head, stamp, signature = good.rsplit(".", 2)
    other = flask_cookie({"user_id": 2})
    yield pytest.param(good[:-1], id="truncated by one")
    yield pytest.param(good[: len(good) // 2], id="truncated by half")
    yield pytest.param(f"{head}.{stamp}.", id="no signature")
    yield pytest.param(f"{head}.{signature}", id="no stamp")
    yield pytest.param(f"{other.rsplit('.', 2)[0]}.{stamp}.{signature}", id="another's content")
    yield pytest.param(f"{head}.ZZZZZZ.{signature}", id="another stamp")
    yield pytest.param(resigned(WRONG_KEY, {"user_id": 1}), id="signed with an unknown key")
    yield pytest.param(resigned("", {"user_id": 1}), id="signed with an empty key")
    yield pytest.param(resigned(OLD_KEY, {"user_id": 1}), id="signed with a key that was retired")
    yield pytest.param(resigned(KEY, {"user_id": 1}, salt="remember"), id="another salt")
    yield pytest.param(
        resigned(KEY, {"user_id": 1}, key_derivation="concat"), id="another key derivation"
    )
    yield pytest.param(
        resigned(KEY, {"user_id": 1}, key_derivation="none"), id="the key without derivation"
    )
    yield pytest.param(
        resigned(KEY, {"user_id": 1}, digest_method=hashlib.sha256), id="another digest"
    )
    yield pytest.param(resigned(KEY, {"user_id": 1}, algorithm=NoneAlgorithm()), id="no algorithm")
    yield pytest.param(
        "session=eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoxfQ.", id="a JWT without algorithm"
    )
    yield pytest.param('session={"user_id": 1}', id="plain JSON")
    yield pytest.param("session=", id="empty")
    yield pytest.param("session", id="without a value")
    yield pytest.param("session=" + "." * 5000, id="5,000 dots")
    yield pytest.param("session=.eJ" + "A" * 100_000 + f".{stamp}.{signature}", id="100 KB")
    yield pytest.param("session=\xff\xfe." + stamp, id="bytes that are no text")
    yield pytest.param(f"{good}\x00", id="NUL at the end")
    yield pytest.param(f"session=forged; {good}", id="a forged one first, as Flask reads it")
    yield pytest.param(f"session; {good}", id="one without a value first")
    yield pytest.param(f'x="; {good}; "', id="within another's quotes")
    yield pytest.param(f"xsession=1; x{good}", id="a longer name")
    yield pytest.param(good.replace("session", "Session"), id="another case")


@pytest.mark.parametrize("header", list(forgeries()))
def test_a_forged_cookie_is_anonymous(header: str) -> None:
    assert user_of(flask_session(), header) == ANONYMOUS
    app = flask_app()
    with app.test_request_context(headers={"Cookie": header.replace("\x00", "")}):
        # Flask reads it so too. No user can be counted by ip instead by writing the cookie
        # differently.
        assert "\x00" in header or "user_id" not in flask.session


@pytest.mark.parametrize(
    "spelling",
    [
        "{}",
        "a=1; {}; b=2",
        "a=1;{};b=2",
        "a=1;   {}  ; b=2",
        "\t{}\t",
        ";;; {} ;",
        '{}; quoted="x"',
        "caf\xc3\xa9=1; {}",
        "\xff=1; {}",
        "{}; session=forged",
        "noise; {}",
        "=x; {}",
        "sessions=1; session_id=2; {}",
    ],
)
def test_a_spelling_that_flask_reads_is_read(spelling: str) -> None:
    cookie = flask_cookie({"user_id": 1})
    for form in (cookie, cookie.replace("=", " = ", 1), cookie.replace("=", '="', 1) + '"'):
        header = spelling.format(form)
        with flask_app().test_request_context(headers={"Cookie": header}):
            expected = "session-user:1" if "user_id" in flask.session else ANONYMOUS
        assert user_of(flask_session(), header) == expected
        assert expected != ANONYMOUS or form != cookie


COOKIE_TEXT = st.text(
    st.one_of(
        st.sampled_from('sS=; \t",\\\x0b\x1c\x85\xa0\xc3\xa9'), st.characters(max_codepoint=255)
    ),
    max_size=12,
)
COOKIE_PARTS = st.lists(
    st.one_of(
        COOKIE_TEXT,
        st.sampled_from(
            [
                "s",
                "s=1",
                " s=2",
                "s =3",
                's="4"',
                's="\\"\\101\\\\101\\8\\477\\"',
                f"s={' ' * 40}5 ",
            ]
        ),
    )
)


@given(COOKIE_PARTS, st.sampled_from([";", "; "]))
def test_a_cookie_is_read_as_werkzeug_reads_it(parts: list[str], separator: str) -> None:
    environ = {"HTTP_COOKIE": separator.join(parts)}
    assert (cookie_reader("s")(environ) or "") == Request(environ).cookies.get("s", "")


@given(COOKIE_PARTS, st.sampled_from([";", "; "]))
def test_a_cookie_is_read_as_django_reads_it(parts: list[str], separator: str) -> None:
    header = separator.join(parts)
    text = header.encode("latin-1").decode(errors="replace")
    read = django_cookie_reader("s")({"HTTP_COOKIE": header})
    assert (read or "") == django_cookies(text).get("s", "")


@pytest.mark.parametrize("reader", [cookie_reader, django_cookie_reader])
@pytest.mark.parametrize(
    "text",
    [
        's="{}"'.format("\\" * 4000),
        's="{}"'.format("\\101" * 1000),
        's="{}'.format('\\"' * 2000),
        's={}"'.format(" " * 4000),
        's{}="'.format("\t" * 4000),
        '{}s="'.format(" " * 4000),
        '{}s="'.format("=;" * 2000),
        "{}".format('s="\\";' * 600),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_cookie_of_eight_times_the_length_takes_about_eight_times_as_long_to_read(
    reader: Callable[[str], Callable[[dict[str, Any]], str | None]], text: str
) -> None:
    read = reader("s")

    def seconds(header: str) -> float:
        """Seconds of the processor that a call takes: the least of several tries."""
        taken = []
        for _ in range(5):
            begun = time.thread_time()
            read({"HTTP_COOKIE": header})
            taken.append(time.thread_time() - begun)
        return min(taken)

    middle = len(text) // 2
    longer = text[:middle] + text[middle - 500 : middle] * (len(text) * 7 // 500) + text[middle:]
    # If the time grew with the square of the length, it would be 64 times as long.
    assert seconds(longer) < 30 * seconds(text) + 0.002


@given(st.text(st.characters(max_codepoint=255)))
def test_no_text_as_a_cookie_raises_or_names_a_user(text: str) -> None:
    assert user_of(flask_session(), f"session={text}") == ANONYMOUS
    assert user_of(django_session(), f"sessionid={text}") == ANONYMOUS


def django_session(**changes: Any) -> Session:
    return Session(**{"kind": "django", "secret_keys": (KEY,), **changes})


DJANGO = """
import json, sys
import django
from django.conf import settings
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[f"django.contrib.{app}" for app in ("auth", "contenttypes", "sessions")],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
    **json.loads(sys.argv[1]),
)
django.setup()
from django.contrib.auth import authenticate, login
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path

def enter(request):
    login(request, authenticate(username="ann", password="pw"))
    request.session["note"] = request.GET.get("note", "")
    return HttpResponse()

urlpatterns = [path("login", enter)]
call_command("migrate", verbosity=0)
User.objects.create_user("bob")
User.objects.create_user("ann", password="pw")
client = Client()
client.get("/login", {"note": "x" * 2000})
name = settings.SESSION_COOKIE_NAME
print(f"{name}={client.cookies[name].value}")
"""
"""A Django application, run in a process of its own, since a process has one set of settings."""


@pytest.fixture(scope="module")
def django_cookie() -> Callable[..., str]:
    """The Cookie header of ann, whose id is 2, after a log-in to a real Django application."""
    made: dict[str, str] = {}

    def log_in(**settings: Any) -> str:
        text = json.dumps({"SECRET_KEY": KEY, **settings}, sort_keys=True)
        if text not in made:
            made[text] = subprocess.run(
                [sys.executable, "-c", DJANGO, text],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            ).stdout.strip()
        return made[text]

    return log_in


class TestDjango:
    def test_the_user_who_logged_in(self, django_cookie: Callable[..., str]) -> None:
        cookie = django_cookie()
        assert cookie.startswith("sessionid=.")
        assert user_of(django_session(), cookie) == "session-user:2"
        assert user_of(django_session(), f"a=b; {cookie}; c=d") == "session-user:2"

    def test_keys_are_rotated(self, django_cookie: Callable[..., str]) -> None:
        before = django_cookie(SECRET_KEY=OLD_KEY)
        assert user_of(django_session(secret_keys=(KEY, OLD_KEY)), before) == "session-user:2"
        assert user_of(django_session(), before) == ANONYMOUS

    def test_a_cookie_name_of_its_own(self, django_cookie: Callable[..., str]) -> None:
        cookie = django_cookie(SESSION_COOKIE_NAME="sid")
        assert user_of(django_session(cookie="sid"), cookie) == "session-user:2"
        assert user_of(django_session(), cookie) == ANONYMOUS

    def test_the_last_cookie_of_a_name_counts_as_in_django(
        self, django_cookie: Callable[..., str]
    ) -> None:
        cookie = django_cookie()
        assert user_of(django_session(), f"sessionid=forged; {cookie}") == "session-user:2"
        assert user_of(django_session(), f"{cookie}; sessionid=forged") == ANONYMOUS

    def test_a_session_ends_after_its_lifetime(
        self, django_cookie: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cookie = django_cookie()
        issued = time.time()
        find = key_function("session-user", Identity(session=django_session(lifetime_s=3600)))
        environ = {"REMOTE_ADDR": ADDRESS, "HTTP_COOKIE": cookie}
        assert find(environ, {}) == "session-user:2"
        monkeypatch.setattr(time, "time", lambda: issued + 3610)
        assert find(environ, {}) == ANONYMOUS
        assert user_of(django_session(lifetime_s=3600), cookie) == ANONYMOUS

    @pytest.mark.parametrize("cut", [1, 10, 40, 60])
    def test_a_truncated_cookie_is_anonymous(
        self, cut: int, django_cookie: Callable[..., str]
    ) -> None:
        assert user_of(django_session(), django_cookie()[:-cut]) == ANONYMOUS

    def test_a_cookie_signed_for_another_purpose_is_anonymous(
        self, django_cookie: Callable[..., str]
    ) -> None:
        cookie = django_cookie()
        assert user_of(django_session(salt="password reset"), cookie) == ANONYMOUS
        assert user_of(flask_session(cookie="sessionid"), cookie) == ANONYMOUS

    @pytest.mark.parametrize(
        ("signer", "expected"),
        [
            pytest.param({}, "session-user:2", id="as Django does"),
            pytest.param({"key": OLD_KEY}, ANONYMOUS, id="with a key that was retired"),
            pytest.param({"key": WRONG_KEY}, ANONYMOUS, id="with an unknown key"),
            pytest.param({"algorithm": "sha1"}, ANONYMOUS, id="by another algorithm"),
            pytest.param({"algorithm": "md5"}, ANONYMOUS, id="by a weak algorithm"),
            pytest.param({"salt": "django.core.signing"}, ANONYMOUS, id="with another salt"),
        ],
    )
    def test_a_cookie_signed_again(self, signer: dict[str, str], expected: str) -> None:
        from django.core import signing

        salt = "django.contrib.sessions.backends.signed_cookies"
        own = signing.TimestampSigner(**{"key": KEY, "salt": salt, "fallback_keys": [], **signer})
        cookie = f"sessionid={own.sign_object({'_auth_user_id': '2'})}"
        assert user_of(django_session(), cookie) == expected

    @pytest.mark.parametrize("payload", [b"\x80\x04K\x01.", b"[1, 2]", b"{", b"\xff", b'"x"'])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_a_signed_payload_of_another_serializer_is_anonymous(
        self, payload: bytes, compressed: bool
    ) -> None:
        from django.core import signing

        signer = signing.TimestampSigner(
            key=KEY, salt="django.contrib.sessions.backends.signed_cookies", fallback_keys=[]
        )
        data = zlib.compress(payload) if compressed else payload
        text = "." * compressed + signing.b64_encode(data).decode()
        assert user_of(django_session(), f"sessionid={signer.sign(text)}") == ANONYMOUS
        broken = signer.sign("." + signing.b64_encode(b"not deflated").decode())
        assert user_of(django_session(), f"sessionid={broken}") == ANONYMOUS

    def test_no_settings_of_django_are_needed(self) -> None:
        program = (
            "from wsgi_throttle.identity import *\n"
            f"find = key_function('session-user', Identity(session={django_session()!r}))\n"
        ).replace("kind='django'", f"kind='django', secret_keys=({KEY!r},)")
        program += "print(find({'REMOTE_ADDR': '192.0.2.1', 'HTTP_COOKIE': 'sessionid=a:b:c'}, {}))"
        environment = {"PYTHONPATH": ":".join(sys.path)}
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        assert answer.stdout.strip() == ANONYMOUS


class TestEnviron:
    class Lazy(dict[str, Any]):
        """A session like Beaker's: it is loaded when it is first read, and that may fail."""

        def __getitem__(self, name: str) -> Any:
            raise OSError("cannot load the session")

    @pytest.mark.parametrize(
        ("user", "environ", "expected"),
        [
            ((), {"REMOTE_USER": "ann"}, "session-user:ann"),
            ((), {"REMOTE_USER": ""}, ANONYMOUS),
            ((), {}, ANONYMOUS),
            (("beaker.session.user_id",), {"beaker.session": {"user_id": 5}}, "session-user:5"),
            (("beaker.session.user_id",), {"beaker.session": {}}, ANONYMOUS),
            (("beaker.session.user_id",), {"beaker.session": None}, ANONYMOUS),
            (("beaker.session.user_id",), {"beaker.session": 7}, ANONYMOUS),
            (("beaker.session.user_id",), {"beaker.session": Lazy()}, ANONYMOUS),
            (("beaker.session.user_id",), {"beaker.session.user_id": "top"}, "session-user:top"),
            (("auth.user.id",), {"auth": {"user": {"id": "x"}}}, "session-user:x"),
            (("A", "B"), {"B": "b"}, "session-user:b"),
            (("A",), {"A": object()}, ANONYMOUS),
        ],
    )
    def test_a_variable_of_the_environ(
        self,
        user: tuple[str, ...],
        environ: dict[str, Any],
        expected: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        assert user_of(Session("environ", user=user), None, **environ) == expected
        failed = any(isinstance(value, self.Lazy) for value in environ.values())
        assert bool(caplog.records) == failed, "what is merely not there is no failure"


class TestMemory:
    """What is cached is not verified again."""

    @pytest.fixture
    def verified(self) -> list[str]:
        """The cookies that were verified, in order."""
        return []

    @pytest.fixture
    def send(self, verified: list[str]) -> Callable[[str], str | None]:
        """Finds the user of a request with a cookie of this value."""
        framework = FRAMEWORKS["flask"]
        verify = framework.verifier([KEY], framework.salt, framework.lifetime_s)

        def noted(cookie: str) -> Verified | None:
            verified.append(cookie)
            return verify(cookie)

        find = SignedCookie(
            framework.cookie_reader("session"), noted, lambda session: str(session["user_id"])
        )
        return lambda cookie: find({"HTTP_COOKIE": f"session={cookie}"})

    def signed(self, number: int, text: str = "") -> str:
        return resigned(KEY, {"user_id": number, "x": text}).partition("=")[2]

    def test_a_valid_cookie_is_remembered(
        self, send: Callable[[str], str | None], verified: list[str]
    ) -> None:
        cookie = self.signed(1)
        assert [send(cookie), send(cookie)] == ["1", "1"]
        assert len(verified) == 1

    def test_a_forged_cookie_is_not_remembered(
        self, send: Callable[[str], str | None], verified: list[str]
    ) -> None:
        assert [send("forged.a.b"), send("forged.a.b")] == [None, None]
        assert len(verified) == 2

    def test_a_long_cookie_is_not_remembered(
        self, send: Callable[[str], str | None], verified: list[str]
    ) -> None:
        text = "".join(str(uuid.uuid4()) for _ in range(MAX_CACHED_LENGTH // 16))
        cookie = self.signed(1, text)
        assert len(cookie) > MAX_CACHED_LENGTH
        assert [send(cookie), send(cookie)] == ["1", "1"]
        assert len(verified) == 2

    def test_cookies_are_not_remembered_without_bound(
        self, send: Callable[[str], str | None], verified: list[str]
    ) -> None:
        cookies = [self.signed(number) for number in range(MAX_CACHED + 1)]
        for cookie in cookies:
            send(cookie)
        assert verified == cookies
        assert send(cookies[0]) == "0"
        assert verified[-1] == cookies[0], "no cookie was forgotten"


class TestLog:
    def test_cookies_that_never_verify_are_noticed_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        find = key_function("session-user", Identity(session=flask_session()))
        for number in range(3 * SUSPICIOUS_FAILURES):
            find({"REMOTE_ADDR": ADDRESS, "HTTP_COOKIE": f"session=server-side-{number}"}, {})
        assert len(caplog.records) == 1
        assert "check secret_key, salt and kind" in caplog.text
        assert "server-side-" not in caplog.text
        assert KEY not in caplog.text

    def test_nothing_is_logged_after_a_valid_cookie(self, caplog: pytest.LogCaptureFixture) -> None:
        find = key_function("session-user", Identity(session=flask_session()))
        find({"REMOTE_ADDR": ADDRESS, "HTTP_COOKIE": flask_cookie({"user_id": 1})}, {})
        for number in range(3 * SUSPICIOUS_FAILURES):
            find({"REMOTE_ADDR": ADDRESS, "HTTP_COOKIE": f"session=forged-{number}"}, {})
        assert not caplog.records

    def test_a_variable_that_fails_is_logged_once_a_minute(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = 1000.0
        session = Session("environ", user=("beaker.session.user_id",))
        settings = Identity(session=session, clock=lambda: int(now * SECOND))
        for spec in ("session-user", "environ:beaker.session.user_id"):
            caplog.clear()
            find = key_function(spec, settings)
            for seconds in (0, 1, 58, 1):
                now += seconds
                find({"REMOTE_ADDR": ADDRESS, "beaker.session": TestEnviron.Lazy()}, {})
            assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
            assert "(2 more left out)" in caplog.records[1].getMessage()


def test_the_defaults_are_those_of_the_frameworks() -> None:
    ours = FRAMEWORKS["flask"]
    config = flask.Flask.default_config
    assert ours.cookie == config["SESSION_COOKIE_NAME"]
    assert timedelta(seconds=ours.lifetime_s) == config["PERMANENT_SESSION_LIFETIME"]
    assert ours.salt == SecureCookieSessionInterface.salt
    ours = FRAMEWORKS["django"]
    assert ours.cookie == django_settings.SESSION_COOKIE_NAME
    assert ours.lifetime_s == django_settings.SESSION_COOKIE_AGE
    assert ours.user == (DJANGO_USER,)


def test_a_framework_that_is_needed_and_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "django", None)
    with pytest.raises(ValueError, match="install the django of the application"):
        django_session()
    assert flask_session().kind == "flask"


def test_no_secret_is_shown() -> None:
    session = flask_session(secret_keys=(KEY, OLD_KEY))
    assert "secret" not in f"{session!r} {session} {Identity(session=session)!r}".replace(
        "secret_keys", ""
    )


class TestSecrets:
    """The application's key comes from the environment, and appears in no message."""

    RULES = (
        'session: {kind: KIND, secret_key: ["${SECRET_KEY}", "${SECRET_KEY}"]}\n'
        "storage: memory://\nkey: session-user\nmode: MODE\n"
        "rules: [{path: /, limits: 1 per minute}]"
    )

    @pytest.fixture
    def write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
        monkeypatch.setenv("SECRET_KEY", KEY)

        def write(kind: str = "flask", mode: str = "enforce") -> str:
            path = tmp_path / "throttle.yaml"
            path.write_text(self.RULES.replace("KIND", kind).replace("MODE", mode))
            return str(path)

        return write

    @pytest.mark.parametrize("command", [["check"], ["explain", "GET", "/", "--user", "42"]])
    @pytest.mark.parametrize(
        "session",
        [("flask", "enforce"), ("django", "shadow"), ("environ", "off"), ("jwt", "of")],
        ids=["Flask", "Django", "a mistake", "two mistakes"],
    )
    def test_not_by_the_commands(
        self,
        command: list[str],
        session: tuple[str, str],
        write: Callable[..., str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        file = write(*session)
        is_sound = session[0] in ("flask", "django")
        assert main([command[0], file, *command[1:]]) == (0 if is_sound else 1)
        printed = "".join(capsys.readouterr())
        assert ("session-user" if is_sound else f"{file}:1:10: session: ") in printed
        assert KEY not in printed

    def test_not_by_the_log_and_neither_is_a_cookie(
        self, write: Callable[..., str], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        throttle = Throttle(flask_app(), write())
        cookies = [flask_cookie({"user_id": 42})]
        cookies += [f"{cookies[0]}{number}" for number in range(3 * SUSPICIOUS_FAILURES)]
        client = Client(throttle, use_cookies=False)
        for cookie in cookies * 2:
            client.get("/", headers={"Cookie": cookie}, environ_base={"REMOTE_ADDR": ADDRESS})
        throttle.close()
        logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
        assert "session-user:42" in logged
        assert KEY not in logged
        assert cookies[0].partition("=")[2] not in logged


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"kind": "jwt"}, "use one of flask, django, environ or python:"),
        ({"kind": "flask"}, "need secret_key"),
        ({"kind": "django", "secret_keys": (KEY, "")}, "need secret_key"),
        ({"kind": "environ", "secret_keys": (KEY,)}, "remove them"),
        ({"kind": "python:a:b", "cookie": "x"}, "remove them"),
        ({"kind": "flask", "secret_keys": (KEY,), "lifetime_s": 0}, "longer than 0"),
        ({"kind": "flask", "secret_keys": (KEY,), "user": ("",)}, r"user: \[user_id\]"),
    ],
)
def test_a_bad_setting_says_what_to_write(settings: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as caught:
        Session(**settings)
    assert KEY not in str(caught.value)
