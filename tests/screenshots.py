"""`make screenshots`: the pictures of the README, made of a stack of its own with invented viewers. Needs a Chromium.

The stack is started in a folder that is deleted afterwards, on free ports, so that a running one is left alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.browser import Page, browser, found

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PORTS = ("CLICKHOUSE_PORT", "API_PORT", "DASHBOARD_PORT", "DAGSTER_PORT", "DOCS_PORT")
#: More invented viewers than by default, so that there is something to be seen.
OPTIONS = ("--sessions", "12000", "--viewers", "30..40")
WIDTH, HEIGHT = 1280, 900
#: So that a video's whole curve is seen.
TALL = 1180
#: A video of the simulator's whose viewers leave at certain points.
TITLE = "Sourdough for beginners"
#: Seconds that live figures are given to gather.
GATHERING = 90


@dataclass(frozen=True)
class Stack:
    """A running stack's ports."""

    ports: dict[str, str]

    def url(self, name: str, path: str = "") -> str:
        """The address of a page of the part whose port this is."""
        return f"http://127.0.0.1:{self.ports[name]}{path}"

    def video(self, title: str) -> str:
        """The id of the video of this title."""
        answer = httpx.get(self.url("API_PORT", "/videos"), params={"search": title}, timeout=60)
        return str(answer.raise_for_status().json()["videos"][0]["video_id"])


@contextmanager
def stack(*options: str) -> Iterator[Stack]:
    """What `retention up` starts with these options, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="retention-", ignore_cleanup_errors=True) as home:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        environment = os.environ | ports | {"RETENTION_HOME": home}
        command = [str(Path(sys.executable).with_name("retention"))]
        try:
            subprocess.run([*command, "up", "--detach", *options], env=environment, check=True)
            yield Stack(ports)
        finally:
            subprocess.run([*command, "down"], env=environment, check=False)


def free_ports(count: int) -> list[str]:
    """So many different ports that nobody listens on."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


def main() -> None:
    """Make all pictures. Ends with a line and a status of 1 where there is no browser."""
    executable = found()
    if executable is None:
        sys.exit("error: there is no Chromium or Chrome on this machine: install chromium")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with stack(*OPTIONS) as running, browser(executable) as page:
        page.size(WIDTH, HEIGHT)
        began = time.monotonic()
        dbt_docs(page, running)
        dagster(page, running)
        overview(page, running)
        video(page, running)
        time.sleep(max(0.0, GATHERING - (time.monotonic() - began)))
        live(page, running)


def overview(page: Page, running: Stack) -> None:
    """The dashboard's first page."""
    page.open(running.url("DASHBOARD_PORT", "/"))
    page.see("Overview")
    page.wait_idle()
    save(page, "overview")


def video(page: Page, running: Stack) -> None:
    """The dashboard's page of a video that people leave at certain points."""
    page.open(running.url("DASHBOARD_PORT", f"/video?video={running.video(TITLE)}"))
    drawn(page, lambda: page.js("document.querySelectorAll('.js-plotly-plot .main-svg').length > 0"))
    page.wait_idle()
    page.size(WIDTH, TALL)
    page.wait_idle()
    save(page, "video")
    page.size(WIDTH, HEIGHT)


def live(page: Page, running: Stack) -> None:
    """The dashboard's page of what is watched now."""
    page.open(running.url("DASHBOARD_PORT", "/live"))
    drawn(page, lambda: page.js("document.querySelectorAll('.js-plotly-plot .main-svg').length > 0"))
    page.wait_idle()
    save(page, "live")


def dagster(page: Page, running: Stack) -> None:
    """Dagster's lineage of the curve."""
    path = "/assets/marts/retention_curve?view=lineage&lineageScope=upstream&lineageDepth=10"
    page.open(running.url("DAGSTER_PORT", path))
    drawn(page, lambda: "stg_videos" in page.text())
    save(page, "dagster-lineage")


def dbt_docs(page: Page, running: Stack) -> None:
    """dbt's page of the curve: every column, and how it is tested."""
    page.open(running.url("DOCS_PORT", "/#!/model/model.retention.retention_curve"))
    drawn(page, lambda: "at_risk" in page.text())
    save(page, "dbt-docs")


def drawn(page: Page, is_there: Callable[[], object]) -> None:
    """Wait until it is there, and until what moves into its place has come to rest."""
    page.wait(is_there, "the page is drawn")
    time.sleep(3)


def save(page: Page, name: str) -> None:
    """Keep what is seen now."""
    page.picture(IMAGES / f"{name}.png")
    print(f"docs/images/{name}.png")


if __name__ == "__main__":
    main()
