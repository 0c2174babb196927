"""How long a person waits for the dashboard: a page's first paint with data, a change of days, a catalogue of 5,000."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence

import httpx

from benchmarks.marts import Bench
from benchmarks.report import Report
from benchmarks.serving import serving
from tests.browser import Page, browser, found
from tests.screenshots import TITLE, Stack, stack

ROUNDS = 6
VIDEOS, INTERVALS, DAYS = 5_000, 200_000, 30
#: Seconds that the browser itself has to start.
STARTING = 3.0
#: Seconds that a page may take before the benchmark gives up.
LIMIT = 60.0
_DRAWN = "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length > 0"
_FIGURES = (
    "[...document.querySelectorAll('[data-testid=\"stMetricValue\"]')].some(value => /[0-9]/.test(value.innerText))"
)
_FIRST_ROW = "document.querySelector('tbody tr')?.innerText"
_AT_REST = (
    "document.querySelector('[data-testid=\"stApp\"]')?.dataset.testScriptState !== 'running' && "
    "!document.querySelector('[data-stale=\"true\"]')"
)


def run(report: Report) -> None:
    """The demo stack with everything that runs in it, then a large catalogue over the API."""
    executable = found()
    if executable is None:
        report.text("Not measured: there is no Chromium or Chrome on this machine.")
        return
    report.text(
        f"In headless Chromium, {ROUNDS} times each. First paint: a browser that was never here goes to the page, "
        "until what it is there for can be seen; figures come before curves, which wait for 4.7 MB of "
        "Plotly. Afterwards: from the click or key until the page shows the answer and has come to rest."
    )
    rows = []
    with stack() as running:
        rows += _paints(executable, _demo_pages(running))
        with browser(executable) as page:
            _go(page, *_demo_pages(running)["video, its curve"])
            rows.append(_row("another choice of days", [_another_range(page, days) for days in _ranges()]))
    head = ("seconds", "median", "slowest")
    report.text("On the demo stack as `make up` starts it, which refreshes its marts every half minute meanwhile:")
    report.table(head, rows)
    with Bench.started(INTERVALS, DAYS, VIDEOS) as bench:
        bench.fill(report, "Dashboard")
        bench.dbt.build(full=True, select=())
        with serving(bench, "api") as api, serving(bench, "dashboard", API_BASE_URL=api) as dashboard:
            rows = _paints(executable, _large_pages(api, dashboard))
            with browser(executable) as page:
                _go(page, *_large_pages(api, dashboard)["overview"])
                rows.append(_row("next page", [_next_page(page) for _ in range(ROUNDS)]))
                rows.append(_row("search", [_search(page, f"Video {number}") for number in _numbers()]))
    report.text(f"With {VIDEOS:,} videos and {INTERVALS:,} played intervals (ClickHouse, API and dashboard running):")
    report.table(head, rows)


def _demo_pages(running: Stack) -> dict[str, tuple[str, str]]:
    """Address of each page, and the JavaScript that says whether it shows what it is there for."""
    return {
        "overview": (running.url("DASHBOARD_PORT", "/"), _reads(TITLE)),
        "video, its figures": (running.url("DASHBOARD_PORT", _video(running)), _FIGURES),
        "video, its curve": (running.url("DASHBOARD_PORT", _video(running)), _DRAWN),
        "live, its figures": (running.url("DASHBOARD_PORT", "/live"), _FIGURES),
        "live, its curves": (running.url("DASHBOARD_PORT", "/live"), _DRAWN),
        "pipeline": (running.url("DASHBOARD_PORT", "/pipeline"), _reads("Last runs")),
    }


def _video(running: Stack) -> str:
    return f"/video?video={running.video(TITLE)}"


def _large_pages(api: str, dashboard: str) -> dict[str, tuple[str, str]]:
    first = httpx.get(f"{api}/overview", params={"limit": 1}, timeout=LIMIT).raise_for_status().json()["videos"][0]
    return {
        "overview": (f"{dashboard}/", _reads(first["title"])),
        "video, its curve": (f"{dashboard}/video?video={first['video_id']}", _DRAWN),
    }


def _reads(text: str) -> str:
    return f"document.body.innerText.includes({json.dumps(text)})"


def _paints(executable: str, pages: dict[str, tuple[str, str]]) -> list[tuple[str, ...]]:
    rows = []
    for name, (address, is_there) in pages.items():
        taken = []
        for _ in range(ROUNDS):
            with browser(executable) as page:
                page.size(1280, 900)
                time.sleep(STARTING)
                taken.append(_go(page, address, is_there))
        rows.append(_row(f"first paint: {name}", taken))
    return rows


def _row(name: str, taken: Sequence[float]) -> tuple[str, ...]:
    return (name, f"{statistics.median(taken):.2f}", f"{max(taken):.2f}")


def _go(page: Page, address: str, is_there: str) -> float:
    return _time(page, lambda: page.open(address), f"location.href != 'about:blank' && !!document.body && {is_there}")


def _ranges() -> list[str]:
    return [("28 days", "7 days", "All days")[number % 3] for number in range(ROUNDS)]


def _another_range(page: Page, days: str) -> float:
    caption = "document.querySelector('[data-testid=\"stCaptionContainer\"]').innerText"
    page.wait_idle()
    before = page.js(caption)
    return _time(page, lambda: page.click(days), f"{caption} != {json.dumps(before)} && {_AT_REST} && {_DRAWN}")


def _numbers() -> list[int]:
    return [VIDEOS * (number + 1) // (ROUNDS + 2) for number in range(ROUNDS)]


def _search(page: Page, title: str) -> float:
    page.wait_idle()
    is_first = f"({_FIRST_ROW} ?? '').startsWith({json.dumps(title)})"
    return _time(page, lambda: page.fill("Search", title), f"{is_first} && {_AT_REST}")


def _next_page(page: Page) -> float:
    page.wait_idle()
    changed = f"{_FIRST_ROW} != {json.dumps(page.js(_FIRST_ROW))}"
    return _time(page, lambda: page.click("Next"), f"{changed} && {_AT_REST}")


def _time(page: Page, act: Callable[[], None], is_there: str) -> float:
    """Seconds from the act until the JavaScript says yes. Raises when it never does."""
    begin = time.perf_counter()
    act()
    while not page.js(is_there):
        if time.perf_counter() - begin > LIMIT:
            raise RuntimeError(f"not within {LIMIT:.0f} s: {is_there}; the page says: {page.text()[:500]}")
        time.sleep(0.02)
    return time.perf_counter() - begin
