"""The dashboard's pages over an API of ours, run by Streamlit's own test harness: what they show, ask and say."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from retention_platform.dashboard.views import common
from tests.dashboard_support import NASTY, FakeApi
from tests.insights_support import changed, insights_of, troubled_facts


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """AppTest puts the page in the place of the main module, which processes that are started later would run again."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The API that the pages ask."""
    made = FakeApi()
    api = made.api()
    for page in ("common", "overview", "video", "live", "pipeline"):
        monkeypatch.setattr(f"retention_platform.dashboard.views.{page}.api", lambda: api)
    return made


def _overview() -> None:
    from retention_platform.dashboard.views import common, overview

    with common.told():
        overview.show()


def _video() -> None:
    from retention_platform.dashboard.views import common, video

    with common.told():
        video.show()


def _live() -> None:
    from retention_platform.dashboard.views import common, live

    with common.told():
        live.show()


def _pipeline() -> None:
    from retention_platform.dashboard.views import common, pipeline

    with common.told():
        pipeline.show()


def run(page: Callable[[], None], /, **query: Any) -> AppTest:
    """The page as it is at this address."""
    test = AppTest.from_function(page, default_timeout=60)
    for name, value in query.items():
        test.query_params[name] = value
    return good(test.run())


def good(test: AppTest) -> AppTest:
    assert not test.exception, test.exception
    return test


def words(test: AppTest) -> str:
    """All that is said in text."""
    kinds = ("title", "subheader", "caption", "markdown", "info", "warning", "error")
    return "\n".join(str(element.value) for kind in kinds for element in test.get(kind))


def outside_code(text: str) -> str:
    """What of a Markdown text a viewer may make something of."""
    return re.sub("`[^`]*`", "", text)


def address(test: AppTest, name: str) -> list[str]:
    """A query parameter of the page's address."""
    value = test.query_params[name]
    return value if isinstance(value, list) else [value]


def metrics(test: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in test.metric}


def test_the_overview_shows_totals_and_finds_videos(fake: FakeApi) -> None:
    page = run(_overview)
    assert metrics(page) == {"Videos": "3", "Views": "1,012", "Watch time": "1 min 40 s", "Watching now": "4"}
    assert "1 to 3 of 3 videos" in words(page)
    good(page.text_input(key="search").set_value("b").run())
    assert metrics(page)["Videos"] == "1"
    assert address(page, "search") == ["b"]
    good(page.text_input(key="search").set_value("zzz").run())
    assert "No title and no id holds this text" in words(page)


def test_the_overviews_order_and_page_are_those_of_the_address(fake: FakeApi) -> None:
    fake.views = {f"v{number}": 100 for number in range(60)}
    fake.titles = dict.fromkeys(fake.views)
    page = run(_overview, sort="Worst completion", page="3")
    assert "51 to 60 of 60 videos" in words(page)
    asked = fake.asked("/overview")[-1].url.params
    assert (asked["sort"], asked["order"], asked["offset"]) == ("completion_rate", "asc", "50")
    good(page.button[0].click().run())
    assert address(page, "page") == ["2"] and "26 to 50 of 60 videos" in words(page)
    good(page.selectbox(key="order").set_value("Title").run())
    assert "1 to 25 of 60 videos" in words(page)


def test_an_empty_catalogue_says_what_to_do(fake: FakeApi) -> None:
    fake.views = {}
    assert "retention produce" in words(run(_overview))
    assert "No video was described or played yet" in words(run(_video))


def test_a_video_is_told_with_its_dropoffs_and_others_text_stays_text(fake: FakeApi) -> None:
    page = run(_video, video="a")
    said = words(page)
    assert "154 views end here (25 % of those watching)" in said
    assert "No moments: tested, and nothing found." in said
    assert metrics(page)["Average percentage viewed"] == "50.0 %"
    assert "the median of 11 other videos of similar length" in said
    assert "<img" in said and "<img" not in outside_code(said)
    assert address(page, "video") == ["a"]


def test_days_and_segments_are_asked_of_the_api_and_stand_in_the_address(fake: FakeApi) -> None:
    page = run(_video, video="a")
    good(page.get("button_group")[0].set_value("7 days").run())
    asked = fake.asked("/video/a/engagement_summary")[-1].url.params
    assert (asked["first_day"], asked["last_day"]) == ("2026-03-14", "2026-03-20")
    assert (address(page, "first_day"), address(page, "last_day")) == (["2026-03-14"], ["2026-03-20"])
    assert metrics(page)["Views"] == "500"
    assert "2026-03-14 to 2026-03-20" in words(page).replace("\\-", "-")
    good(page.multiselect(key="device_type of a").set_value(["tv"]).run())
    assert address(page, "device_type") == ["tv"]
    assert fake.asked("/video/a/retention_curve")[-1].url.params.get_list("device_type")
    assert "Dropoffs and moments are of all views" in words(page)


def test_an_address_opens_the_days_and_segments_it_says(fake: FakeApi) -> None:
    page = run(_video, video="a", first_day="2026-03-02", last_day="2026-03-03", device_type="tv")
    asked = fake.asked("/video/a/engagement_summary")[-1].url.params
    assert dict(asked) == {"first_day": "2026-03-02", "last_day": "2026-03-03", "device_type": "tv"}
    assert page.multiselect(key="device_type of a").value == ["tv"]


@pytest.mark.parametrize(
    ("video", "told"),
    [
        ("b", "Only 12 views: the curve is mostly chance"),
        ("c", "No views yet"),
        ("gone", "A title"),
        ("x", "Not Found"),
    ],
)
def test_what_cannot_be_shown_is_told(fake: FakeApi, video: str, told: str) -> None:
    if video == "gone":
        fake.problem = (404, "unknown-video")
    assert told in words(run(_video, video=video))


def section(page: AppTest) -> Any:
    """The buttons that open the further sections."""
    return next(widget for widget in page.get("button_group") if widget.key == "section")


def test_segments_are_asked_for_when_they_are_opened_and_drawn_side_by_side(fake: FakeApi) -> None:
    page = run(_video, video="a", first_day="2026-03-02", last_day="2026-03-03")
    before = len(fake.asked("/video/a/retention_curve"))
    good(section(page).set_value("Segments").run())
    curves = [dict(request.url.params) for request in fake.asked("/video/a/retention_curve")[before:]]
    drawn = {asked["device_type"] for asked in curves if "device_type" in asked}
    assert len(drawn) > 1 and {asked["first_day"] for asked in curves} == {"2026-03-02"}
    assert "Each curve is of its segment's own views." in words(page)


def test_a_link_to_a_comparison_opens_it(fake: FakeApi) -> None:
    page = run(_video, **{"video": "a", "with": "b"})
    assert fake.asked("/compare")[-1].url.params.get_list("video_id") == ["a", "b"] and section(page).value == "Compare"


def test_videos_are_compared_on_one_axis(fake: FakeApi) -> None:
    page = run(_video, video="a")
    good(section(page).set_value("Compare").run())
    good(page.multiselect(key="compared with a").set_value(["b", "c"]).run())
    assert fake.asked("/compare")[-1].url.params.get_list("video_id") == ["a", "b", "c"]
    assert address(page, "with") == ["b", "c"]
    assert "Nobody watched c, so there is no curve." in words(page)


def test_an_analysis_is_asked_for_and_shown_as_text(fake: FakeApi) -> None:
    page = run(_video, video="a")
    good(section(page).set_value("Analyze with AI").run())
    assert "This API has no analyses" in words(page)
    by_rules = insights_of(troubled_facts())
    made = by_rules.model_copy(update={"analysis": changed(by_rules.analysis, headline=NASTY)})
    fake.insights = {"video_id": "a", "reason": None, "insights": made.model_dump(mode="json")}
    good(page.button(key="analyze").click().run())
    assert fake.asked("/insights")[-1].url.params["fresh"] == "true"
    said = words(page)
    assert made.analysis.recommendations[0].action in said
    assert "Assessment" in said and f"confidence {made.analysis.assessment.confidence}" in said
    assert "rules (" in said and f"facts of version {made.facts.facts_version}" in said and f"{made.made_at:%Y}" in said
    assert "<img" in said and "<img" not in outside_code(said)
    fake.insights = {"video_id": "a", "reason": {"code": "not_made", "text": "none yet"}, "insights": None}
    assert "No analysis is kept: none yet" in words(good(page.run()))


def test_live_shows_who_watches_and_the_curve_of_the_last_hour(fake: FakeApi) -> None:
    page = run(_live)
    assert metrics(page) == {"Watching now": "4", "Most at once, last hour": "7", "Videos watched now": "1"}
    assert page.selectbox(key="live_video").value == "a"
    assert "Of 1,000 sessions that played in the last hour" in words(page)
    good(page.selectbox(key="live_video").set_value("c").run())
    assert "No live curve" in words(page) and address(page, "video") == ["c"]


def test_the_pipeline_tells_freshness_rejects_and_runs(fake: FakeApi) -> None:
    fake.lag_s = 3600.0
    page = run(_pipeline)
    assert metrics(page)["Figures behind events"] == "1 h 0 min"
    assert "retention refresh" in words(page)
    tables = [table.value for table in page.dataframe]
    assert any("position_ms" in list(table.get("Field", ())) for table in tables)
    assert any("marts" in list(table.get("Job", ())) for table in tables)


@pytest.mark.parametrize("page", [_overview, _video, _live, _pipeline])
def test_a_page_says_that_the_api_is_away_and_shows_itself_when_it_is_back(
    fake: FakeApi, page: Callable[[], None]
) -> None:
    fake.away = True
    shown = run(page)
    assert "Disconnected" in words(shown) and "retention up" in words(shown)
    fake.away = False
    assert "Disconnected" not in words(good(shown.run()))


def test_a_warehouse_that_is_away_is_told_in_its_own_words(fake: FakeApi) -> None:
    fake.problem = (503, "warehouse-away")
    assert "A detail" in words(run(_overview))


def test_the_api_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_BASE_URL", "http://127.0.0.1:1/")
    common.api.clear()
    try:
        assert common.api().base_url == "http://127.0.0.1:1"
    finally:
        common.api.clear()
