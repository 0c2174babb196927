"""Reports over marts that dbt built on the real engine: their figures are the API's, to the last digit."""

from __future__ import annotations

import json
import statistics
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cmarkgfm
import dagster as dg
import httpx
import pytest
import yaml

from retention_platform import cli
from retention_platform.definitions import defs
from retention_platform.errors import RetentionError, ServiceError
from retention_platform.orchestration import previews, reports
from retention_platform.orchestration.resources import Warehouse
from retention_platform.report import digest, reasons
from retention_platform.report.facts import MIN_PEERS, facts_of
from retention_platform.report.files import file_name
from retention_platform.report.make import Format, report_for, written
from retention_platform.report.queries import SECTIONS, UnknownVideo, asking, read, sections
from retention_platform.report.untrusted import plain
from retention_platform.settings import DBT_PROJECT_DIR, Settings, get_settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests import oracle
from tests.api_support import path, serving
from tests.conftest import DATABASES
from tests.dbt_support import Chain
from tests.report_support import ATTACKS, ORDINARY, everything
from tests.test_report_text import parsed, words_of

NOW = datetime(2026, 3, 20, 12, tzinfo=timezone.utc)
#: The week in which `everything` was watched; some of it seven days before.
MONDAY = date(2026, 3, 9)

#: The rows of the headline table, and the API's field of each.
HEADLINE = {
    "Views": "views",
    "Viewers": "unique_viewers",
    "Engaged views (3 s and more)": "engaged_views",
    "Watch time": "watch_time_s",
    "Average view duration": "average_view_duration_s",
    "Average percentage viewed": "average_view_percentage",
    "Came to the end": "completion_rate",
    "Watching at 0:03": "hook_retention_3s",
    "Watching at 0:30": "intro_retention_30s",
    "Views with a rewatch": "rewatch_rate",
    "Seeks a view": "seeks_per_view",
    "Most viewers at once": "peak_concurrent_viewers",
}


@pytest.fixture(scope="module")
def data() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return everything()


@pytest.fixture(scope="module")
def settings(
    clickhouse_port: int,
    tmp_path_factory: pytest.TempPathFactory,
    data: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> Settings:
    folder = tmp_path_factory.mktemp("report")
    settings = load_settings(retention_home=folder, clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port)
    client = connect(settings)
    for database in DATABASES:
        client.command(f"drop database if exists {database} sync")
    migrate(client)
    client.close()
    chain = Chain(settings, folder)
    events, videos = data
    chain.send_videos(videos)
    chain.send_events(events)
    chain.build()
    return settings


@pytest.fixture(scope="module")
def ask(settings: Settings) -> Iterator[Any]:
    client = connect(settings)
    yield asking(client)
    client.close()


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[httpx.Client]:
    with serving(settings) as client:
        yield client


@pytest.fixture
def stack(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment of a process that uses this warehouse; its state folder."""
    monkeypatch.setenv("CLICKHOUSE_HOST", settings.clickhouse_host)
    monkeypatch.setenv("CLICKHOUSE_PORT", str(settings.clickhouse_port))
    monkeypatch.setenv("RETENTION_HOME", str(tmp_path))
    get_settings.cache_clear()
    return tmp_path


def get(api: httpx.Client, video_id: str, what: str) -> dict[str, Any]:
    answer = api.get(path(video_id, what))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def tables(tree: ET.Element, heading: str) -> list[list[list[ET.Element]]]:
    """The cells of the tables' rows under a heading."""
    found, inside = [], False
    for element in tree.iter():
        if element.tag in ("h1", "h2"):
            inside = words_of(element) == heading
        if inside and element.tag == "table":
            rows = [list(row) for row in element.iter("tr")]
            found.append([row for row in rows if row and row[0].tag == "td"])
    return found


def figures(cell: ET.Element) -> list[float]:
    return [float(data.get("value") or "") for data in cell.iter("data")]


def html_of(ask: Any, video_id: str) -> ET.Element:
    return parsed(report_for(read(ask, video_id), video_id, Format.HTML, made_at=NOW, script="plotly.js"))


def rendered(markdown: str) -> ET.Element:
    return parsed(cmarkgfm.github_flavored_markdown_to_html(markdown))


def figure_in(tree: ET.Element) -> dict[str, Any]:
    (script,) = (e for e in tree.iter("script") if e.get("type") == "application/json")
    found: dict[str, Any] = json.loads(script.text or "")
    return found


def test_every_headline_figure_is_the_apis_to_the_last_digit(ask: Any, api: httpx.Client) -> None:
    listed = api.get("/videos", params={"limit": 1000}).json()["videos"]
    for video in [video for video in listed if video["views"]][::2]:
        summary = get(api, video["video_id"], "engagement_summary")
        ((*rows,),) = tables(html_of(ask, video["video_id"]), "In short")
        assert [words_of(row[0]) for row in rows] == list(HEADLINE)
        for row in rows:
            value = summary[HEADLINE[words_of(row[0])]]
            assert figures(row[1]) == ([] if value is None else [value])
            assert (words_of(row[1]) == "–") == (value is None)


def test_the_curve_is_the_apis_second_by_second(ask: Any, api: httpx.Client) -> None:
    for video_id in ("cliff", "peer-3", "attack 0"):
        points = get(api, video_id, "retention_curve")["points"]
        tree = html_of(ask, video_id)
        traces = {trace["name"]: trace for trace in figure_in(tree)["data"]}
        for name in ("retention rate", "audience watch ratio", "reach ratio", "ci_low", "ci_high"):
            assert traces[name]["x"] == [point["second"] for point in points]
            assert traces[name]["y"] == [point[name.replace(" ", "_")] for point in points]
        counts = [[point["watching_views"], point["segment_plays"]] for point in points]
        assert [said[1:] for said in traces["retention rate"]["customdata"]] == counts
        (rows,) = tables(tree, "The retention curve")
        assert len(rows) == 5
        for row in rows:
            point = points[round(figures(row[0])[0])]
            assert figures(row[1]) == [point["watching_views"]]
            assert figures(row[2]) == [point["retention_rate"]]
            assert figures(row[3]) == [point["ci_low"], point["ci_high"]]
            assert figures(row[4]) == [point["audience_watch_ratio"]]


def test_dropoffs_are_the_apis_with_their_times_and_chapters(ask: Any, api: httpx.Client) -> None:
    dropoffs = get(api, "cliff", "significant_dropoffs")["dropoffs"]
    assert len(dropoffs) >= 2
    tree = html_of(ask, "cliff")
    items = [item for item in tree.iter("li") if "views that came here ended here" in words_of(item)]
    names = ("views_lost", "at_risk", "expected_views_lost", "excess_points", "q_value")
    assert [figures(item) for item in items] == [[dropoff[name] for name in names] for dropoff in dropoffs]
    for item, dropoff in zip(items, dropoffs, strict=True):
        start, end = (f"{s // 60}:{s % 60:02}" for s in (dropoff["start_second"], dropoff["end_second"]))
        assert words_of(item).startswith(f"{start} to {end} in chapter {dropoff['chapter']}, {dropoff['severity']}: ")
    shapes = [shape for shape in figure_in(tree)["layout"]["shapes"] if shape["type"] == "rect"]
    marked = {(shape["x0"], shape["x1"]) for shape in shapes}
    assert {(dropoff["start_second"], dropoff["end_second"]) for dropoff in dropoffs} <= marked


def test_markdown_shows_the_apis_figures_rounded(ask: Any, api: httpx.Client) -> None:
    summary = get(api, "cliff", "engagement_summary")
    (rows,) = tables(rendered(report_for(read(ask, "cliff"), "cliff", made_at=NOW)), "In short")
    shown = {words_of(row[0]): words_of(row[1]) for row in rows}
    assert shown["Views"] == str(summary["views"])
    assert shown["Came to the end"] == f"{100 * summary['completion_rate']:.1f} %"
    assert shown["Average percentage viewed"] == f"{summary['average_view_percentage']:.1f} %"
    minutes = round(summary["watch_time_s"] / 60)
    assert shown["Watch time"] == f"{minutes // 60} h {minutes % 60} min"
    duration = round(summary["average_view_duration_s"])
    assert shown["Average view duration"] == f"{duration // 60} min {duration % 60} s"


def test_typical_is_the_median_of_the_other_videos_of_similar_length(ask: Any, api: httpx.Client) -> None:
    summaries = [
        get(api, video["video_id"], "engagement_summary")
        for video in api.get("/videos", params={"limit": 1000}).json()["videos"]
    ]
    big = [s for s in summaries if s["is_sufficient"]]
    similar = [s for s in big if s["video_id"] != "cliff" and abs(s["duration_s"] - 200) <= 50]
    assert MIN_PEERS <= len(similar) < len(summaries)
    (rows,) = tables(html_of(ask, "cliff"), "In short")
    for row in rows:
        name = HEADLINE[words_of(row[0])]
        if figures(row[2]):
            assert figures(row[2]) == [pytest.approx(statistics.median(s[name] for s in similar))]
    assert sum(bool(figures(row[2])) for row in rows) == 8
    typical = get(api, "cliff", "typical")
    assert (typical["peers"], typical["videos"]) == ("similar", len(similar))
    for name in ("average_view_percentage", "completion_rate", "hook_retention_3s", "rewatch_rate"):
        assert typical[name] == pytest.approx(statistics.median(s[name] for s in similar)), name
    assert f"the catalogue's {len(similar)} other videos of similar length" in words_of(html_of(ask, "cliff"))
    # No video is as short as these, so they are compared with all.
    assert f"the catalogue's {len(big)} other videos of any length" in words_of(html_of(ask, "attack 3"))


def test_without_enough_videos_to_compare_with_nothing_is_typical(ask: Any) -> None:
    rows = {**read(ask, "cliff"), "typical": [{"peers": "all", "videos": MIN_PEERS - 1, "completion_rate": 0.2}]}
    document = report_for(rows, "cliff", made_at=NOW)
    assert "Nothing is called typical" in document and "above the typical" not in document


def test_segments_add_up_to_the_video_and_name_what_the_player_did_not_say(
    ask: Any, data: tuple[list[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    tree = html_of(ask, "cliff")
    expected: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for event in data[0]:
        if event["video_id"] == "cliff" and event["event_id"] and "country" in event:
            expected["country"][event["country"]].add(event["session_id"])
            expected["device"][event.get("device_type") or "not said by the player"].add(event["session_id"])
    found = [{words_of(row[0]): figures(row[1]) for row in rows} for rows in tables(tree, "Who watches how")]
    for dimension in expected.values():
        assert {name: [len(ids)] for name, ids in dimension.items()} in found
    assert all(sum(views[0] for views in segments.values()) == 200 for segments in found)


def test_data_quality_counts_what_was_wrong_with_what_came(
    ask: Any, api: httpx.Client, data: tuple[list[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    (rows,) = tables(html_of(ask, "cliff"), "How good the data is")
    found = {words_of(row[0]): figures(row[1]) + figures(row[2]) for row in rows}
    sent = [event for event in data[0] if event["video_id"] == "cliff"]
    events = {event["event_id"] for event in sent}
    assert found["Invalid intervals"] == [1, len(events)]
    assert found["Invalid intervals"][0] == get(api, "cliff", "engagement_summary")["invalid_intervals"]
    assert found["Implausible sessions"] == [0, 200]
    assert found["Duplicate messages"] == [2, len(sent)] and len(sent) == len(events) + 2


@pytest.mark.parametrize("video_id", ["nobody", "nobody knows how long", "attack 3", "peer-3", "cliff"])
def test_what_is_missing_is_missing_for_the_apis_reason(ask: Any, api: httpx.Client, video_id: str) -> None:
    said = words_of(rendered(report_for(read(ask, video_id), video_id, made_at=NOW)))
    for what in ("retention_curve", "significant_dropoffs"):
        reason = get(api, video_id, what)["reason"]
        assert reason is None or reason["text"] in said
    views = get(api, video_id, "engagement_summary")["views"]
    assert ("No figures yet" in said) == (views == 0)
    assert ("Too few views to rely on" in said) == (0 < views < 30)


def test_thresholds_are_those_of_the_marts() -> None:
    variables = yaml.safe_load((DBT_PROJECT_DIR / "dbt_project.yml").read_text(encoding="utf-8"))["vars"]
    assert variables["sufficient_views"] == reasons.SUFFICIENT_VIEWS
    assert variables["moments_min_views"] == reasons.MOMENTS_MIN_VIEWS
    assert variables["tentative_below_views"] == reasons.TENTATIVE_BELOW_VIEWS
    assert variables["dropoff_buckets"] == reasons.DROPOFF_BUCKETS
    assert variables["dropoff_edge_buckets"] == reasons.DROPOFF_EDGE_BUCKETS
    assert variables["relative_length_percent"] == reasons.SIMILAR_LENGTH_PERCENT


def test_every_attack_of_the_catalogue_reads_as_it_was_written(ask: Any) -> None:
    attacks = list(ATTACKS.values())
    for number in range(0, len(attacks), 4):
        tree = html_of(ask, f"attack {number // 4}")
        said = [words_of(e) for e in tree.iter("bdi")]
        for attack in attacks[number : number + 2]:
            # The same on its way through the broker's contract, ClickHouse, dbt and the driver.
            assert plain(attack[:1000], 60)[:50] in " ".join(said)
        assert len(list(tree.iter("script"))) == 3
        assert not [e for e in tree.iter() if e.tag in ("img", "a", "b", "i", "em") or e.get("id") == "stolen"]


def test_a_section_whose_mart_is_not_built_is_left_out(ask: Any) -> None:
    optional = {name for name, section in SECTIONS.items() if not section.required}
    rows = {name: found for name, found in read(ask, "cliff").items() if name not in optional}
    html = parsed(report_for(rows, "cliff", Format.HTML, made_at=NOW, script="plotly.js"))
    headings = [words_of(e) for e in html.iter("h2")]
    assert not {"Who watches how", "Key moments", "Analysis"} & {*headings}
    assert "Where people leave" in headings
    # The summary counts these two as well.
    (quality,) = tables(html, "How good the data is")
    assert [(words_of(row[0]), figures(row[1])) for row in quality] == [
        ("Implausible sessions", [0]),
        ("Invalid intervals", [1]),
    ]


def test_marts_that_are_not_built_and_videos_nobody_knows_are_told_in_one_line(ask: Any) -> None:
    with pytest.raises(ServiceError, match=r"marts.dropoff_points is missing: run `retention refresh`"):
        sections(["videos", "engagement_summary", "retention_curve"])
    with pytest.raises(UnknownVideo, match="no video 'nobody at all'"):
        read(ask, "nobody at all")
    with pytest.raises(UnknownVideo):
        facts_of({"video": []}, "x")


def test_a_curve_of_other_views_than_the_summary_says_so(ask: Any) -> None:
    rows = dict(read(ask, "cliff"))
    rows["summary"] = [{**rows["summary"][0], "views": 150}]
    assert "the curve is of 200 views, the figures above of 150." in report_for(rows, "cliff", made_at=NOW)
    rows["summary"] = []
    assert "No figures yet" in report_for(rows, "cliff", made_at=NOW)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["retention", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_prints_markdown_and_writes_what_a_files_name_says(
    stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "report", "cliff") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"# Retention report: {ORDINARY.replace('&', '&amp;')}\n")
    assert "│" in printed and "![" not in printed
    for name in ("a report.md", "page.html", "curve.svg"):
        assert run(monkeypatch, "report", "cliff", "-o", str(stack / name)) == 0
    (image,) = rendered((stack / "a report.md").read_text(encoding="utf-8")).iter("img")
    picture = stack / unquote(image.get("src") or "")
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert picture.read_bytes() == (stack / "curve.svg").read_bytes()
    assert (stack / "page.html").stat().st_size > 4_000_000
    assert sorted(p.name for p in stack.iterdir()) == ["a report.md", "a report.svg", "curve.svg", "page.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nobody at all"], "no video 'nobody at all'"),
        (["report", "cliff", "--format", "pdf"], "--format 'pdf' is not known"),
        (["report"], "name one video"),
        (["report", "cliff", "--digest"], "name one video"),
        (["report", "--digest", "--week", "monday"], "'monday' is no day"),
        (["report", "cliff", "-o", "/nowhere/at/all.md"], "cannot write /nowhere/at/all.md: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    stack: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert run(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def sessions_by_week(
    data: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> dict[date, dict[str, list[tuple[str, oracle.View, int]]]]:
    """Views by the Monday of their first event and by video, each with its viewer and the video's length."""
    events, videos = data
    durations = {video["video_id"]: video.get("duration_ms") for video in videos}
    sessions: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in oracle.distinct(events):
        sessions[event["video_id"], event["session_id"]].append(dict(event))
    weeks: dict[date, dict[str, list[tuple[str, oracle.View, int]]]] = defaultdict(lambda: defaultdict(list))
    for (video_id, _), found in sessions.items():
        duration = durations.get(video_id) or 12_500
        view = oracle.view_of(found, duration)
        assert view.counts
        day = datetime.fromtimestamp(view.first_ms / 1000, timezone.utc).date()
        weeks[day - timedelta(days=day.weekday())][video_id].append((view.viewer_id, view, duration))
    return weeks


def test_the_digest_is_what_counting_by_hand_gives(
    ask: Any, data: tuple[list[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    tree = parsed(written(digest.document(digest.read(ask, MONDAY), MONDAY, NOW), Format.HTML, script="plotly.js"))
    weeks = sessions_by_week(data)
    assert weeks.keys() == {MONDAY, MONDAY - timedelta(days=7)}
    (totals,) = tables(tree, "In short")
    for column, monday in ((1, MONDAY), (2, MONDAY - timedelta(days=7))):
        views = [view for found in weeks[monday].values() for view in found]
        shares = [view.content_watched_ms / duration for _, view, duration in views]
        ended = [view.furthest_ms > max(d - 30_000, 0.95 * d) for _, view, d in views]
        wanted = {
            "Views": len(views),
            "Viewers": len({viewer for viewer, _, _ in views}),
            "Videos watched": len(weeks[monday]),
            "Watch time": float(sum(view.watch_time_s for _, view, _ in views)),
            "Average percentage viewed": 100 * statistics.mean(shares),
            "Came to the end": statistics.mean(ended),
        }
        for row in totals:
            assert figures(row[column]) == [pytest.approx(wanted[words_of(row[0])])], words_of(row[0])
    (bars,) = (figure_in(tree)["data"],)
    by_day: dict[int, int] = defaultdict(int)
    for found in weeks[MONDAY].values():
        for _, view, _ in found:
            by_day[datetime.fromtimestamp(view.first_ms / 1000, timezone.utc).weekday()] += 1
    assert bars[0]["y"] == [by_day[day] for day in range(7)] and bars[0]["x"][0] == "Mon 9"


def test_the_digest_tells_of_the_most_viewed_and_of_what_moved(
    ask: Any, data: tuple[list[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    weeks = sessions_by_week(data)
    now = {video_id: len(found) for video_id, found in weeks[MONDAY].items()}
    before = {video_id: len(found) for video_id, found in weeks[MONDAY - timedelta(days=7)].items()}
    text = written(digest.document(digest.read(ask, MONDAY), MONDAY, NOW), Format.MARKDOWN)
    (rows,) = tables(rendered(text), "Most viewed")
    top = sorted(now, key=lambda video_id: (-now[video_id], video_id))[:10]
    assert [words_of(row[1]) for row in rows] == [str(now[video_id]) for video_id in top]
    assert words_of(rows[0][0]) == ORDINARY
    assert f"About faded: -40 views, from {before['faded']} to 0" in text
    assert f"+{now['cliff']} views, from 0 to {now['cliff']}" in text
    # Fewer views than say anything are no movement, however many times more they are.
    assert text.count(" views, from ") == sum(
        max(now.get(v, 0), before.get(v, 0)) >= 30 and v in ("cliff", "faded", *[f"peer-{n}" for n in range(2, 6)])
        for v in {*now, *before}
    )


def test_a_week_in_which_nobody_watched_and_one_that_is_not_over_say_so(ask: Any) -> None:
    def text(monday: date, made_at: datetime) -> str:
        return written(digest.document(digest.read(ask, monday), monday, made_at), Format.MARKDOWN)

    assert "Nobody watched anything this week. The week before had" in text(MONDAY + timedelta(days=7), NOW)
    assert "Nobody watched anything this week.\n" in text(MONDAY + timedelta(days=70), NOW + timedelta(days=90))
    assert "This week is not over" in text(MONDAY, datetime(2026, 3, 15, 23, 59, tzinfo=timezone.utc))
    assert "This week is not over" not in text(MONDAY, datetime(2026, 3, 16, tzinfo=timezone.utc))


def test_dagster_writes_every_report_and_drops_those_of_videos_that_are_gone(stack: Path, api: httpx.Client) -> None:
    gone = stack / "reports" / "videos" / "gone.html"
    gone.parent.mkdir(parents=True)
    gone.write_text("old")
    week = reports.Week(day=MONDAY.isoformat())
    result = dg.materialize(
        [reports.video_reports, reports.weekly_digest],
        resources={"warehouse": Warehouse()},
        run_config=dg.RunConfig(ops={reports.weekly_digest.op.name: week}),
    )
    assert result.success
    videos = api.get("/videos", params={"limit": 1000}).json()["videos"]
    names = {file_name(video["video_id"]) for video in videos}
    assert {p.stem for p in gone.parent.glob("*.html")} == {p.stem for p in gone.parent.glob("*.md")} == names
    assert {p.stem for p in gone.parent.glob("*.svg")} == {file_name(v["video_id"]) for v in videos if v["views"]}
    assert not list(stack.rglob("*.part"))
    html = parsed((gone.parent / "cliff.html").read_text(encoding="utf-8"))
    (library,) = (e.get("src") for e in html.iter("script") if e.get("src"))
    assert (gone.parent / str(library)).stat().st_size > 4_000_000
    assert (stack / "reports" / "digests" / "2026-W11.html").exists()
    for event in result.get_asset_materialization_events():
        shown = event.step_materialization_data.materialization.metadata
        assert any(isinstance(value, dg.MarkdownMetadataValue) for value in shown.values())
    (made,) = result.asset_materializations_for_node(reports.video_reports.op.name)
    most_viewed = made.metadata["most viewed"]
    assert isinstance(most_viewed, dg.TableMetadataValue)
    assert most_viewed.records[0].data["video_id"] == "cliff"


def test_every_mart_has_a_preview_and_charts_where_they_say_more(stack: Path, ask: Any) -> None:
    built = {row["name"] for row in ask("select name from system.tables where database = 'marts'", {})}
    with Warehouse().client() as client:
        shown = {mart: previews.preview(client, mart) for mart in built}
    assert previews.PREVIEWS.keys() >= {"videos", "retention_curve", "engagement_summary", "dropoff_points"}
    for mart, found in shown.items():
        assert ("preview" in found) == (mart in previews.PREVIEWS), mart
        if found:
            preview = found["preview"]
            assert isinstance(preview, dg.TableMetadataValue)
            assert 0 < len(preview.records) <= previews.ROWS, mart
            assert list(preview.records[0].data) == [column.name for column in preview.schema.columns]
    for mart in ("retention_curve", "engagement_daily"):
        assert "█" in str(shown[mart]["chart"].value)


def test_the_digest_of_a_tick_is_of_the_week_before_it_however_late_it_runs() -> None:
    for tick, week in ((datetime(2026, 3, 16, 5), "2026-03-09"), (datetime(2027, 1, 4, 5), "2026-12-28")):
        context = dg.build_schedule_context(scheduled_execution_time=tick.replace(tzinfo=timezone.utc))
        request = reports.weekly_digests(context)
        assert isinstance(request, dg.RunRequest)
        assert request.run_config["ops"][reports.weekly_digest.op.name]["config"] == {"day": week}
        assert request.run_key == digest.week_name(date.fromisoformat(week))
    assert digest.week_name(date(2026, 12, 28)) == "2026-W53"


def test_reports_and_digests_are_scheduled_and_come_after_the_marts_they_read() -> None:
    repository = defs.get_repository_def()
    assert {"daily_reports", "weekly_digests"} <= {schedule.name for schedule in repository.schedule_defs}
    graph = defs.resolve_asset_graph()
    for asset in (reports.video_reports, reports.weekly_digest):
        parents = graph.get(asset.key).parent_keys
        assert parents and all(graph.get(key).is_materializable for key in parents)


def test_a_day_that_is_none_is_refused_by_the_digest() -> None:
    with pytest.raises(RetentionError, match="'2026-13-01' is no day"):
        digest.day_of("2026-13-01")
    assert digest.monday_of(date(2026, 3, 15)) == MONDAY == digest.last_week(datetime(2026, 3, 16))
