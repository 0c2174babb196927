"""How figures and curves are put: words at their edges, and pictures that lose no drop and no peak."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_platform.report import drawing, interactive, words
from retention_platform.report.model import Bars, Curve, Mark

SVG = "{http://www.w3.org/2000/svg}"
shares = st.floats(0, 1, allow_nan=False)


def points(rates: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "second": second,
            "views": 100,
            "watching_views": 50,
            "segment_plays": 60,
            "retention_rate": rate,
            "audience_watch_ratio": 1.2 * rate,
            "reach_ratio": 1.0,
            "ci_low": max(0.0, rate - 0.1),
            "ci_high": min(1.0, rate + 0.1),
        }
        for second, rate in enumerate(rates)
    ]


@settings(deadline=None)
@given(st.lists(shares, min_size=1, max_size=300), st.integers(2, 50))
def test_a_thinned_curve_keeps_its_order_its_lowest_and_its_highest(rates: list[float], at_most: int) -> None:
    rows = points(rates)
    kept = drawing.thinned(rows, "retention_rate", at_most)
    assert 0 < len(kept) <= max(at_most, 2)
    assert [row["second"] for row in kept] == sorted({row["second"] for row in kept})
    found = [row["retention_rate"] for row in kept]
    assert (min(found), max(found)) == (min(rates), max(rates))
    assert len(rows) > at_most or kept == rows


@settings(deadline=None)
@given(st.lists(shares, min_size=1, max_size=200))
def test_a_column_of_text_is_as_high_as_its_stretch_and_nothing_is_not_something(rates: list[float]) -> None:
    lines = drawing.text_chart(Curve(points(rates), len(rates))).splitlines()[: drawing.TEXT_HEIGHT]
    width = min(drawing.TEXT_WIDTH, len(rates))
    columns = [[line[7:].ljust(width)[column] for line in lines] for column in range(width)]
    for number, column in enumerate(columns):
        a, b = number * len(rates) // width, (number + 1) * len(rates) // width
        mean = sum(rates[a:b]) / (b - a)
        height = sum(" ▁▂▃▄▅▆▇█".index(sign) for sign in column) / 8
        assert height == pytest.approx(mean * drawing.TEXT_HEIGHT, abs=0.126)
        assert (height == 0) == (mean == 0)


def test_a_week_long_curve_is_a_small_picture_and_a_page_that_opens() -> None:
    rows = points([1.0] * 604_800)
    rows[400_000]["retention_rate"] = 0.0
    curve = Curve(rows, 604_800.0)
    svg = drawing.svg(curve)
    assert len(svg) < 200_000
    line = ET.fromstring(svg).findall(f"{SVG}polyline")[-1].get("points") or ""
    bottom = max(float(place.split(",")[1]) for place in line.split())
    assert bottom == drawing.HEIGHT - 34
    figure = interactive.figure(curve)
    assert all(len(trace["x"]) <= interactive.MAX_POINTS for trace in figure["data"])
    assert 0.0 in figure["data"][2]["y"]


def test_the_picture_has_every_second_where_it_belongs_and_every_mark() -> None:
    rates = [1.0, 0.75, 0.5, 0.25]
    curve = Curve(points(rates), 4.0, [Mark(1, 2, "dropoff"), Mark(2, 4, "spike")], [(0, "One"), (2, "Two")])
    tree = ET.fromstring(drawing.svg(curve))
    line = tree.findall(f"{SVG}polyline")[-1].get("points") or ""
    xs, ys = zip(*(map(float, place.split(",")) for place in line.split()), strict=True)
    steps = [b - a for a, b in itertools.pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    falls = [b - a for a, b in itertools.pairwise(ys)]
    assert falls == pytest.approx([falls[0]] * 3, abs=0.2) and falls[0] > 0
    titles = [title.text for title in tree.iter(f"{SVG}title")]
    assert titles[1:] == ["dropoff 0:01 to 0:02", "rewatched 0:02 to 0:04"]
    assert {"One", "Two"} <= {text.text for text in tree.iter(f"{SVG}text")}


def test_bars_are_as_long_as_their_values() -> None:
    bars = Bars(["Mon", "Tue", "Wed"], [0, 10, 5], "Views a day")
    assert [line.count("█") for line in drawing.bars_chart(bars).splitlines()] == [0, 48, 24]
    heights = [float(rect.get("height") or 0) for rect in ET.fromstring(drawing.bars_svg(bars)).iter(f"{SVG}rect")][1:]
    assert heights[0] == 0 and heights[1] == 2 * heights[2] > 0
    assert drawing.bars_chart(Bars(["Mon"], [0], "Views a day")) == "Mon  0"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (281, "4 min 41 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (512_340.5, "142 h 19 min"),
        (36_000_000, "10,000 h 0 min"),
    ],
)
def test_a_length_is_said_in_the_units_people_use(seconds: float, said: str) -> None:
    assert words.length(seconds) == said


@given(st.integers(0, 7 * 24 * 3600))
def test_a_place_in_the_video_can_be_read_back(second: int) -> None:
    said = words.position(second)
    assert re.fullmatch(r"(\d+:\d\d|\d+):\d\d", said)
    total = 0
    for part in said.split(":"):
        total = total * 60 + int(part)
    assert total == second


def test_times_are_utc_whatever_they_came_as() -> None:
    here = datetime(2026, 3, 15, 1, 2, 3)
    east = datetime(2026, 3, 15, 6, 32, 3, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert words.when(here) == words.when(east) == "2026-03-15 01:02:03 UTC"


def test_zero_and_nothing_are_never_said_alike() -> None:
    said = [say(0) for say in (words.count, words.decimal, words.share, words.percentage, words.ratio, words.length)]
    assert words.NOTHING not in said
    assert (words.plural(1, "view"), words.plural(2_000, "view")) == ("1 view", "2,000 views")
