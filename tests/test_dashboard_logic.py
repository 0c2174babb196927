"""The dashboard's pure parts and its client: addresses, sentences, figures, markup, colours, kept answers, failures."""

from __future__ import annotations

import html.parser
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import streamlit
from hypothesis import given
from hypothesis import strategies as st

from retention_platform.api.models.audience import Instant
from retention_platform.api.models.curves import RankedPoint
from retention_platform.api.models.moments import Dropoff
from retention_platform.api.models.overview import OverviewItem
from retention_platform.dashboard import client, figures, markup, sentences, theme
from retention_platform.dashboard.__main__ import listen, options
from retention_platform.dashboard.address import DIMENSIONS, MAX_COMPARED, Selection, selection
from retention_platform.dashboard.ahead import ChartsAhead
from retention_platform.errors import RetentionError, ServiceError
from retention_platform.settings import load_settings
from tests.dashboard_support import NASTY, NOW, FakeApi, dropoff, point

DAYS = st.none() | st.dates()
VALUES = st.lists(st.text(max_size=8), unique=True, max_size=4).map(tuple)
SOME_DAYS = st.tuples(DAYS, DAYS).filter(lambda days: None in days or days[0] <= days[1])


@given(
    st.text(min_size=1, max_size=9),
    SOME_DAYS,
    st.dictionaries(st.sampled_from([name for name in DIMENSIONS if name != "viewer_type"]), VALUES.filter(bool)),
    st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=MAX_COMPARED).map(tuple),
)
def test_an_address_leads_back_to_what_was_chosen(
    video_id: str, days: Any, segments: dict[str, tuple[str, ...]], others: tuple[str, ...]
) -> None:
    chosen = Selection(video_id, *days, segments, tuple(one for one in others if one != video_id))
    query = {name: [value] if isinstance(value, str) else value for name, value in chosen.query().items()}
    assert selection(query) == chosen


@pytest.mark.parametrize(
    "query",
    [
        {"first_day": ["yesterday"], "viewer_type": ["old"], "with": [""], "video": [""]},
        {"first_day": ["2026-03-02"], "last_day": ["2026-03-01"]},
        {"nonsense": ["1"]},
    ],
)
def test_what_makes_no_sense_in_an_address_is_left_out(query: dict[str, list[str]]) -> None:
    assert selection(query) == Selection()


def ranked(second: int, watching: int, views: int) -> RankedPoint:
    return RankedPoint.model_validate(point(second, watching, views))


def test_hovering_says_the_time_the_viewers_the_share_and_its_uncertainty() -> None:
    assert sentences.hover(ranked(42, 812, 1000), 1000) == "0:42 · 812 of 1,000 viewers (81 %, ±2.4)"
    assert sentences.hover(ranked(3723, 0, 1), 1) == "1:02:03 · 0 of 1 viewer (0 %, ±1.2)"


def test_a_dropoff_is_told_in_words_and_its_chapter_is_only_text() -> None:
    told = sentences.dropoff(Dropoff.model_validate(dropoff(chapter="A *chapter*")))
    assert told == (
        "**0:40 to 0:42** in A \\*chapter\\*: 154 views end here (25 % of those watching), where about 12 would be "
        "usual. That costs 14.1 % of all views."
    )


@pytest.mark.parametrize(
    ("now", "before", "told"), [(56, 50, "+12 %"), (25, 50, "-50 %"), (50, 50, "±0 %"), (3, 0, "new"), (0, 0, "–")]
)
def test_a_change_of_views_is_relative_to_the_week_before(now: int, before: int, told: str) -> None:
    assert sentences.change(now, before) == told


def test_figures_are_compared_with_what_is_typical_in_their_own_unit() -> None:
    api = FakeApi().api()
    found = {row.name: row for row in sentences.figures(api.summary(Selection("a")), api.typical("a"))}
    assert found["Average percentage viewed"][1:4] == ("50.0 %", "44.0 %", "+6.0 points")
    assert found["Completion"][1:4] == ("25.0 %", "30.0 %", "-5.0 points")
    assert found["Average view duration"][1:4] == ("0:30", "0:40", "-0:10")
    assert found["Rewatching"][1:4] == ("10.0 %", None, None)


@pytest.mark.parametrize(("lag_s", "alarming"), [(5.0, False), (899.0, False), (901.0, True)])
def test_stale_figures_are_told(lag_s: float, alarming: bool) -> None:
    fake = FakeApi()
    fake.lag_s = lag_s
    text, found = sentences.freshness(fake.api().health())
    assert found == alarming
    assert ("retention refresh" in text) == alarming


def test_the_curves_figure_is_the_points_with_their_band_marks_and_chapters() -> None:
    api = FakeApi().api()
    chosen = Selection("a")
    facts = api.facts(chosen)
    marks = sentences.marked(facts.dropoffs.dropoffs, facts.moments.moments)
    figure = figures.retention(
        facts.curve, theme.LIGHT, chapters=facts.summary.chapters, marks=marks, lines=["Reach", "Audience watch ratio"]
    )
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines["Retention"].y) == [point.retention_rate for point in facts.curve.points]
    assert lines["Retention"].customdata[30].startswith("0:30 · 500 of 1,000 viewers (50 %, ±")
    assert list(lines["95 % band, upper"].y) == [point.ci_high for point in facts.curve.points]
    assert list(lines["95 % band, lower"].y) == [point.ci_low for point in facts.curve.points]
    assert list(lines["Reach"].y) == [point.reach_ratio for point in facts.curve.points]
    assert list(lines["Rewatched"].z[0]) == [point.rewatch_ratio for point in facts.curve.points]
    assert list(lines["Numbers"].text) == ["①"] and list(lines["Numbers"].x) == [41.0]
    assert (40, 42) in {(shape.x0, shape.x1) for shape in figure.layout.shapes}
    assert (30, 60) in {(shape.x0, shape.x1) for shape in figure.layout.shapes}
    written = [note.text for note in figure.layout.annotations]
    assert written[0] == "One" and "<" not in written[1]
    assert figure.layout.xaxis.ticktext[:3] == ("0:00", "0:10", "0:20")


def test_figures_without_points_are_empty_and_no_failure() -> None:
    fake = FakeApi()
    api = fake.api()
    nothing = api.curve(Selection("c"))
    assert list(figures.retention(nothing, theme.DARK).data[-2].y) == []
    assert len(figures.side_by_side([("tv", nothing), ("phone", api.curve(Selection("a")))], theme.DARK).data) == 1
    assert [trace.name for trace in figures.comparison(api.compare(["a", "b", "c"]), theme.DARK).data][1:] == ["Second"]
    instants = [Instant(at=NOW + timedelta(seconds=10 * n), concurrent_viewers=n) for n in range(3)]
    live = figures.concurrency(instants, {NASTY: instants}, theme.LIGHT)
    assert list(live.data[0].y) == [0, 1, 2] and "<" not in live.data[1].name


def test_the_catalogue_is_a_table_with_links_and_others_text_stays_text() -> None:
    class Reader(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.links: list[str | None] = []
            self.words: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)
            if tag == "a":
                self.links.append(dict(attrs)["href"])
            if tag == "img":
                assert str(dict(attrs)["src"]).startswith("data:image/svg+xml;base64,") and dict(attrs)["alt"]

        def handle_data(self, data: str) -> None:
            self.words.append(data)

    fake = FakeApi()
    fake.views = {'x/ü&"<b>': 1000, "c": 0}
    fake.titles = dict.fromkeys(fake.views, NASTY)
    items = fake.api().overview("", "views", "desc", 25, 0).videos
    reader = Reader()
    reader.feed(markup.catalogue(items, {"c": 1234}, theme.LIGHT))
    assert reader.links == ["video?video=x%2F%C3%BC%26%22%3Cb%3E", "video?video=c"]
    assert reader.tags.count("img") == 1 and not {"script", "b"} & set(reader.tags)
    assert reader.words.count(NASTY) == 2
    assert {"1,000", "1,234", "+12 %", "+1.5 pts", "25.0 %"} <= set(reader.words)


def contrast(one: str, other: str) -> float:
    """WCAG 2: the ratio of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_and_lines_can_be_told_from_their_background(colours: theme.Palette) -> None:
    for name in ("text", "quiet", "dropoff", "spike", "dip", "top_moment", "retention"):
        assert contrast(getattr(colours, name), colours.background) >= 4.5, name
    assert len(set(theme.DASHES)) == len(colours.series)


def test_kept_answers_are_asked_for_by_their_tag_and_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeApi()
    api = fake.api()
    now = [100.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: now[0])
    first = api.curve(Selection("a"))
    assert api.curve(Selection("a")) is first
    assert len(fake.requests) == 1
    now[0] += client.BELIEVE_SECONDS + 0.1
    assert api.curve(Selection("a")) is first
    assert [request.headers.get("if-none-match") for request in fake.requests] == [None, 'W/"1"']
    fake.views["a"] = 500
    assert api.curve(Selection("a"), points=7).views == 500
    for number in range(client.KEEP_ANSWERS + 1):
        api.videos(str(number))
    assert api.curve(Selection("a")).views == 500


def test_live_answers_are_never_kept() -> None:
    fake = FakeApi()
    api = fake.api()
    assert api.viewers_now() == api.viewers_now()
    assert len(fake.requests) == 2


def test_ids_and_segments_travel_percent_encoded() -> None:
    fake = FakeApi()
    fake.views = {"a": 1}
    with pytest.raises(client.ApiProblem):
        fake.api().summary(Selection("a?b#c ü", first_day=date(2026, 3, 1), segments={"country": ("D E", "")}))
    asked = fake.requests[0].url
    assert asked.raw_path.decode().startswith("/video/a%3Fb%23c%20%C3%BC/engagement_summary?first_day=2026-03-01")
    assert asked.params.get_list("country") == ["D E", ""]


def test_failures_say_in_one_line_what_to_do() -> None:
    fake = FakeApi()
    fake.away = True
    with pytest.raises(client.ApiAway, match="does not answer: start it with `retention up`, or set API_BASE_URL"):
        fake.api().health()
    fake.away, fake.problem = False, (503, "marts-missing")
    with pytest.raises(client.ApiProblem, match="A detail") as problem:
        fake.api().videos()
    assert (problem.value.status, problem.value.name, problem.value.title) == (503, "marts-missing", "A title")
    for answer in (httpx.Response(200, text="<html>"), httpx.Response(200, json={"videos": 3})):
        other = client.Api("http://x", transport=httpx.MockTransport(lambda _, said=answer: said))  # type: ignore[misc]
        with pytest.raises(ServiceError, match="another shape than expected"):
            other.videos()
    silent = client.Api("http://x", transport=httpx.MockTransport(lambda _: httpx.Response(502, text="bad gateway")))
    with pytest.raises(client.ApiProblem, match="answered 502"):
        silent.videos()


def test_the_key_is_sent_where_there_is_one() -> None:
    fake = FakeApi()
    client.Api("http://x", "secret", transport=httpx.MockTransport(fake.answer)).health()
    fake.api().health()
    assert [request.headers.get("x-api-key") for request in fake.requests] == ["secret", None]


def test_a_taken_port_is_told_in_one_line() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RetentionError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*set DASHBOARD_HOST and"):
            listen(load_settings(dashboard_port=port))
    listen(load_settings(dashboard_port=port)).close()


def test_streamlit_knows_every_option_and_tells_nobody() -> None:
    from streamlit import config

    given = options(load_settings(dashboard_port=1234))
    config.get_config_options()
    assert set(given) <= set(config._config_options_template)
    assert given["browser.gatherUsageStats"] is False
    assert (given["server.address"], given["server.port"]) == ("127.0.0.1", 1234)


def test_a_page_of_the_catalogue_is_what_the_model_says() -> None:
    item = FakeApi().api().overview("", "views", "desc", 25, 0).videos[0]
    assert isinstance(item, OverviewItem) and item.sparkline == [1.0, 0.5, 0.25]


def test_every_page_tells_the_browser_of_what_draws_charts_and_nothing_else_does() -> None:
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    app = Starlette(routes=[Route("/", lambda _: HTMLResponse("x")), Route("/data", lambda _: JSONResponse({}))])
    app.add_middleware(ChartsAhead)
    asked = TestClient(app)
    told = asked.get("/").headers["link"]
    part = re.fullmatch(r"<\./(static/js/PlotlyChart\.\S+\.js)>; rel=modulepreload; crossorigin", told)
    assert part and (Path(streamlit.__file__).parent / "static" / part[1]).stat().st_size > 1_000_000
    assert "link" not in asked.get("/data").headers
