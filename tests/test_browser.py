"""The page of a refused request, shown by a real Chromium."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from time import monotonic
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from support.charges import decision_on
from support.servers import wait_until
from wsgi_throttle.decision import NEVER_MS, Charge, Limit, Outcome
from wsgi_throttle.http.responder import Responder
from wsgi_throttle.http.settings import ResponseSettings

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
CHROMEDRIVER = shutil.which("chromedriver")

MISSING = [
    name for name, path in (("chromium", CHROMIUM), ("chromium-driver", CHROMEDRIVER)) if not path
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"needs {' and '.join(MISSING)}: sudo apt-get install {' '.join(MISSING)}",
    ),
]


@dataclass
class Site:
    """A site whose every request is refused. The test says how."""

    wait_ms: int = 60_000
    policy: str = ""
    """A Content-Security-Policy that is added to the answers, as a proxy might add it."""
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        quota = 0 if self.wait_ms == NEVER_MS else 5
        charge = Charge("b", Limit("sliding-window", quota, 60_000, quota), 1, True, "login")
        decision = decision_on(False, [charge], [Outcome(self.wait_ms, 0, self.wait_ms)])
        status, headers, body = Responder(ResponseSettings()).too_many_requests(
            environ, decision, 0
        )
        if self.policy:
            headers.append(("Content-Security-Policy", self.policy))
        start_response(status, headers)
        return [body]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with make_server("127.0.0.1", 0, site, Server, Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    profile: Path = tmp_path_factory.mktemp("profile")
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "disable-dev-shm-usage"),
        *("no-first-run", "disable-background-networking", "disable-component-update"),
        *("disable-sync", f"user-data-dir={profile}"),
    ):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    browser.set_page_load_timeout(15)
    yield browser
    browser.quit()


def shown(browser: webdriver.Chrome) -> str:
    """The text of the page that a reader sees."""
    text: str = browser.find_element(By.TAG_NAME, "main").text
    return text.replace("\u00a0", " ")


def test_the_countdown_counts_down_and_then_offers_to_try_again(
    browser: webdriver.Chrome, site: Site
) -> None:
    site.wait_ms = 3_000
    asked = monotonic()
    browser.get(f"{site.url}/login?next=/")
    texts: list[str] = []

    def over() -> bool:
        text = shown(browser)
        if text not in texts:
            texts.append(text)
        return "You can try again now." in text

    wait_until(over, what="the countdown's end")
    assert monotonic() - asked >= 2.99  # the browser's clock has whole milliseconds
    *counting, last = texts
    left = [int(re.findall(r"again in\s(\d+) seconds?$", text)[0]) for text in counting]
    assert left == sorted(left, reverse=True)
    assert len(left) >= 2
    assert left[-1] == 1
    assert "Try again" not in "".join(counting)
    assert last.endswith("You can try again now.\nTry again")

    site.requests.clear()
    browser.find_element(By.LINK_TEXT, "Try again").click()
    wait_until(lambda: site.requests, what="the link's request")
    assert site.requests == ["GET /login"]
    assert browser.current_url == f"{site.url}/login?next=/"


WORDS = {
    "a second": (1_000, "1 second"),
    "a minute": (60_000, "1 minute"),
    "almost an hour": (3_541_000, "59 minutes 1 second"),
    "over an hour": (3_601_000, "1 hour 1 second"),
    "over a day": (86_400_000 + 3_600_000 + 5_000, "1 day 1 hour"),
}


def test_long_times_are_told_in_two_units(browser: webdriver.Chrome, site: Site) -> None:
    stopped = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "Date.now = () => 0"}
    )
    for wait_ms, words in WORDS.values():
        site.wait_ms = wait_ms
        browser.get(site.url)
        assert shown(browser).endswith(f"You can try again in\n{words}")
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", stopped)


def test_the_page_asks_for_nothing_more_and_has_no_error(
    browser: webdriver.Chrome, site: Site
) -> None:
    browser.get_log("browser")
    for path in ("/login", "/search"):
        browser.get(site.url + path)
    assert site.requests == ["GET /login", "GET /search"]
    assert {entry["source"] for entry in browser.get_log("browser")} <= {"network"}  # the 429s


def test_a_page_without_a_time_has_no_countdown(browser: webdriver.Chrome, site: Site) -> None:
    site.wait_ms = NEVER_MS
    browser.get(site.url)
    assert shown(browser) == "Too many requests\nThe limit here is 0 per minute."


def test_the_page_says_all_where_no_script_may_run(browser: webdriver.Chrome, site: Site) -> None:
    site.policy = "default-src 'none'"
    browser.get(site.url)
    assert shown(browser) == (
        "Too many requests\nThe limit here is 5 per minute.\n"
        "You can try again in 60 seconds\nTry again"
    )


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two CSS colours."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_fits_and_can_be_read(
    browser: webdriver.Chrome, site: Site, scheme: str, width: int
) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    size = {"width": width, "height": 560, "deviceScaleFactor": 1, "mobile": width == 320}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    site.wait_ms = 20 * 86_400_000 - 1
    browser.get(site.url)
    content, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert content <= window == width
    colours = browser.execute_script(
        """
        const card = getComputedStyle(document.querySelector("main")).backgroundColor;
        document.getElementById("again").hidden = false;
        return [...document.querySelectorAll("h1, p, span, a")].map(
            (each) => [each.tagName, getComputedStyle(each).color, card]);
        """
    )
    assert len({card for _, _, card in colours}) == 1
    assert ("rgb(255, 255, 255)" in colours[0]) == (scheme == "light")
    for tag, colour, card in colours:
        assert contrast(colour, card) >= 4.5, tag
