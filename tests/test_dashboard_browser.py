"""The dashboard as its user meets it: the real API, the real dashboard, a real browser."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from retention_platform.api.__main__ import listen
from retention_platform.api.app import create_app
from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests.api_support import answers, describe, free_port, wait_until, watch
from tests.browser import Page, browser, found
from tests.conftest import DATABASES
from tests.dbt_support import Chain

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(found() is None, reason="there is no Chromium or Chrome on this machine"),
]
EVIL = "<img src=x onerror=window.evil=1> **cliff**"


@dataclass
class ServedApi:
    """The API on a port that stays its own, so that it can go and come back."""

    settings: Settings
    port: int
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None

    def start(self) -> None:
        listening = listen(load_settings(retention_home=self.settings.retention_home, api_port=self.port))
        self.server = uvicorn.Server(
            uvicorn.Config(create_app(self.settings), log_level="critical", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]})
        self.thread.start()
        wait_until(lambda: answers(f"http://127.0.0.1:{self.port}/health"), 60)

    def stop(self) -> None:
        assert self.server is not None and self.thread is not None
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def served(clickhouse_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    home = tmp_path_factory.mktemp("dashboard")
    settings = load_settings(retention_home=home, clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port)
    client = connect(settings)
    for database in DATABASES:
        client.command(f"drop database if exists {database} sync")
    migrate(client)
    client.close()
    chain, rng, everything = Chain(settings, home), random.Random(5), []
    for number in range(150):
        days = 86_400_000 * (number % 20)
        for video_id, leaves_at in (("cliff", 60.5 if number % 3 == 0 else rng.randrange(1, 200)), ("other", 30)):
            events = watch(video_id, number, leaves_at, 200)
            everything += [event | {"event_time": event["event_time"] + days} for event in events]
    chain.send_events(everything)
    chain.send_videos([describe("cliff", duration_ms=200_000) | {"title": EVIL}, describe("other")])
    chain.build()
    chain.client.close()
    api = ServedApi(settings, free_port())
    api.start()
    yield api
    api.stop()


@pytest.fixture(scope="module")
def dashboard(served: ServedApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard over the API, a process of its own."""
    port = free_port()
    settings = {"API_BASE_URL": f"http://127.0.0.1:{served.port}", "DASHBOARD_PORT": str(port)}
    home = {"RETENTION_HOME": str(tmp_path_factory.mktemp("home"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "retention_platform.dashboard"],
        env={**os.environ, **settings, **home},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/_stcore/health"), 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser(found() or "") as opened:
        opened.size(1400, 1200)
        yield opened


def drawn(page: Page) -> list[str]:
    """What the retention curve says when pointed at, second by second; as the picture that is shown has it."""
    script = """
        (() => {
            for (const plot of document.querySelectorAll('.js-plotly-plot'))
                for (const trace of plot.data || [])
                    if (trace.name === 'Retention') return Array.from(trace.customdata);
            return [];
        })()
    """
    return [str(line) for line in page.js(script)]


def test_a_video_is_found_read_narrowed_compared_analyzed_and_downloaded(
    page: Page, dashboard: str, served: ServedApi, tmp_path: Path
) -> None:
    curve = httpx.get(f"http://127.0.0.1:{served.port}/video/cliff/retention_curve", timeout=30).json()
    page.open(dashboard)
    page.see("2 videos")
    page.click(EVIL)
    page.see("What happens where")
    wanted = [
        f"{point['second'] // 60}:{point['second'] % 60:02} · {point['watching_views']:,} of 150 viewers"
        for point in curve["points"]
    ]
    page.wait(lambda: len(drawn(page)) == 200, "the curve is drawn")
    assert [line.split(" (")[0] for line in drawn(page)] == wanted
    assert page.js("window.evil") is None
    assert "views end here" in page.text()
    page.wait_idle()

    page.click("7 days")
    page.wait(lambda: "first_day=" in page.js("location.search"), "the days stand in the address")
    chosen = dict(httpx.URL(page.js("location.href")).params)
    narrowed = httpx.get(
        f"http://127.0.0.1:{served.port}/video/cliff/retention_curve",
        params={name: chosen[name] for name in ("first_day", "last_day")},
        timeout=30,
    ).json()
    assert 0 < narrowed["views"] < 150
    page.wait(lambda: any(f"of {narrowed['views']} viewers" in line for line in drawn(page)), "the curve of 7 days")
    page.wait_idle()

    page.click("Compare")
    page.see("Compare with")
    page.wait_idle()
    page.click("Day by day")
    page.wait_idle()
    page.click("Analyze with AI")
    page.see("Analyze now")
    page.wait_idle()
    page.click("Analyze now")
    page.see("no language model")
    page.wait_idle()

    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("Downloads")
    page.see("Report (Markdown)")
    page.wait_idle()
    for name, start in (("Report (Markdown)", "# "), ("Curve (CSV)", '"second"')):
        page.click(name)
        ending = ".md" if "Markdown" in name else ".csv"
        file = page.wait(lambda end=ending: next(tmp_path.glob(f"*{end}"), None), f"{name} is saved")  # type: ignore[misc]
        page.wait(lambda saved=file, first=start: saved.read_text().startswith(first), f"{name} is whole")  # type: ignore[misc]


def test_an_address_with_videos_beside_it_opens_the_comparison(page: Page, dashboard: str) -> None:
    page.open(f"{dashboard}/video?video=cliff&with=other")
    page.see("What happens where")
    page.wait_idle()
    page.click("Compare")
    script = """[...document.querySelectorAll('.js-plotly-plot')]
        .flatMap(plot => (plot.data || []).map(trace => trace.name))"""
    page.wait(lambda: "About other" in page.js(script), "the other video's line is drawn")
    assert page.js("window.evil") is None


@pytest.mark.parametrize(("path", "text"), [("/live", "Watching now"), ("/pipeline", "Last runs")])
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (400, True)], ids=["wide-light", "narrow-dark"])
def test_every_page_shows_itself_and_is_no_wider_than_the_window(
    page: Page, dashboard: str, path: str, text: str, width: int, dark: bool
) -> None:
    page.size(width, 1000, dark=dark)
    page.open(dashboard + path)
    page.see(text)
    page.wait_idle()
    assert page.js("document.documentElement.scrollWidth") <= width
    background = page.js("getComputedStyle(document.querySelector('[data-testid=\"stApp\"]')).backgroundColor")
    assert background == ("rgb(16, 21, 28)" if dark else "rgb(255, 255, 255)")
    page.size(1400, 1200)


def test_an_api_that_goes_is_told_and_its_return_seen(page: Page, dashboard: str, served: ServedApi) -> None:
    served.stop()
    try:
        page.open(f"{dashboard}/?search=cli")
        page.see("Disconnected")
        assert "retention up" in page.text()
    finally:
        served.start()
    page.see("1 to 1 of 1 video")
