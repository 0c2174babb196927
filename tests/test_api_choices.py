"""The API over some days and segments, some seconds, several videos, the last hour: all as the oracles have it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from retention_platform.report.make import report_for
from retention_platform.report.queries import asking, read
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests import oracle, oracle_engagement
from tests.api_support import describe, path, serving, watch
from tests.conftest import DATABASES
from tests.dbt_support import Chain
from tests.live_oracle import HOUR_MS, concurrency, curve, viewers_now
from tests.test_api_videos import assert_same, get

DAY_MS = 86_400_000
NASTY = "it's a \\ \"tab\t\n] '), ('"


def _history() -> list[dict[str, Any]]:
    rng, events = random.Random(3), []
    for video_id, views, seconds in (("talk", 160, 75.5), ("clip", 45, 9), ("epic", 30, 400)):
        for viewer in range(views):
            session = watch(video_id, viewer, rng.randrange(1, round(seconds * 10)) / 10, seconds)
            said = {"device_type": rng.choice(["tv", "phone", NASTY]), "country": rng.choice(["DE", "FR"])}
            said |= {"traffic_source": "mail"} if viewer % 3 else {}
            # One video is older, so that it was watched in both of the last two weeks.
            shift = DAY_MS * (viewer % 4) * (-3 if video_id == "epic" else 1)
            events += [event | said | {"event_time": event["event_time"] + shift} for event in session]
    return events


HISTORY = _history()
VIDEOS = [describe("talk", duration_ms=75_500, chapters=[{"start_ms": 0, "title": "<b>One</b>"}]), describe("nobody")]


@pytest.fixture(scope="module")
def chain(clickhouse_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    home = tmp_path_factory.mktemp("api")
    settings = load_settings(retention_home=home, clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port)
    client = connect(settings)
    for database in DATABASES:
        client.command(f"drop database if exists {database} sync")
    migrate(client)
    client.close()
    chain = Chain(settings, home)
    chain.send_events(HISTORY)
    chain.send_videos(VIDEOS)
    chain.build()
    yield chain
    chain.client.close()


@pytest.fixture(scope="module")
def api(chain: Chain) -> Iterator[httpx.Client]:
    with serving(chain.settings) as served:
        yield served


@pytest.fixture(scope="module")
def sessions() -> list[oracle_engagement.Session]:
    return oracle_engagement.sessions(HISTORY, VIDEOS)


def ask(api: httpx.Client, address: str, status: int = 200, **parameters: Any) -> Any:
    return get(api, f"{address}?{urlencode(parameters, doseq=True)}", status)


CHOICES: list[dict[str, Any]] = [
    {"first_day": "2026-03-16"},
    {"last_day": "2026-03-15"},
    {"first_day": "2026-03-15", "last_day": "2026-03-16", "viewer_type": "new"},
    {"device_type": ["tv", NASTY]},
    {"device_type": NASTY, "country": "FR"},
    {"traffic_source": ""},
    {"traffic_source": "mail", "viewer_type": ["new", "returning"], "last_day": "9999-12-31"},
    {"device_type": "fridge"},
    {"first_day": "2100-01-01"},
    {"first_day": "0001-01-01", "last_day": "1500-01-01"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: urlencode(choice, doseq=True)[:60])
@pytest.mark.parametrize("video_id", ["talk", "clip"])
def test_figures_of_some_days_and_segments_are_the_oracles(
    api: httpx.Client, sessions: list[oracle_engagement.Session], video_id: str, choice: dict[str, Any]
) -> None:
    given = {name: [value] if isinstance(value, str) else value for name, value in choice.items()}

    def wanted(session: oracle_engagement.Session) -> bool:
        if not choice.get("first_day", "0000") <= str(session.day) <= choice.get("last_day", "9999"):
            return False
        said = {name: session.said(name) for name in ("device_type", "country", "traffic_source")}
        said["viewer_type"] = session.viewer_type or ""
        return all(value in given[name] for name, value in said.items() if name in given)

    chosen = [s for s in sessions if s.video_id == video_id and s.view.counts and wanted(s)]
    found = ask(api, path(video_id, "retention_curve"), **choice)
    rows = oracle.curve([s.view for s in chosen], chosen[0].duration_ms if chosen else None)
    assert len(found["points"]) == len(rows)
    for second, (point, row) in enumerate(zip(found["points"], rows, strict=True)):
        assert_same(point, {k: v for k, v in row.items() if k != "views"} | {"second": second})
    assert (found["views"], found["is_sufficient"]) == (len(chosen), len(chosen) >= 30)
    assert found["chosen"] == {
        **{name: given[name][0] if name in given else None for name in ("first_day", "last_day")},
        **{name: given.get(name, []) for name in ("device_type", "country", "traffic_source", "viewer_type")},
    }
    summary = ask(api, path(video_id, "engagement_summary"), **choice)
    if chosen:
        assert_same(summary, oracle_engagement.engagement(chosen))
    for answer in (found, summary):
        assert answer["reason"] is None if chosen else answer["reason"]["code"] == "nobody"
    assert (summary["views"], summary["sessions"], summary["chosen"]) == (len(chosen), None, found["chosen"])


@pytest.mark.parametrize("dimension", ["device_type", "country", "traffic_source", "viewer_type"])
def test_the_curve_of_a_segment_is_the_curve_of_that_choice(api: httpx.Client, dimension: str) -> None:
    found = ask(api, path("talk", "retention_curve_by_segment"), dimension=dimension)
    segments = get(api, path("talk", "engagement_by_segment"))["segments"]
    values = sorted(segment["value"] for segment in segments if segment["dimension"] == dimension)
    wanted = []
    for value in values:
        curve = ask(api, path("talk", "retention_curve"), **{dimension: value})
        for point in curve["points"]:
            del point["relative_retention_performance"]
            wanted.append({**point, "value": value, "views": curve["views"]})
    assert len(found["points"]) == len(wanted) == 76 * len(values)
    for point, row in zip(found["points"], wanted, strict=True):
        assert point == pytest.approx(row)
    assert ask(api, path("talk", "retention_curve_by_segment"), 422)["errors"][0]["field"] == "query.dimension"


@pytest.mark.parametrize("video_id", ["talk", "clip", "epic"])
@pytest.mark.parametrize("points", [2, 3, 7, 75, 76, 77, 1000])
def test_fewer_points_are_seconds_of_the_curve_evenly_spread(api: httpx.Client, video_id: str, points: int) -> None:
    whole = get(api, path(video_id, "retention_curve"))["points"]
    last = len(whole) - 1
    seconds = sorted({int(Fraction(i * last, points - 1) + Fraction(1, 2)) for i in range(points)})
    assert get(api, path(video_id, f"retention_curve?points={points}"))["points"] == [whole[s] for s in seconds]


def test_videos_are_compared_at_the_same_parts_of_their_length(api: httpx.Client) -> None:
    ids = ["epic", "nobody", "clip", "talk"]
    found = ask(api, "/compare", video_id=ids, points=9)
    assert [video["video_id"] for video in found["videos"]] == ids
    wanted = []
    for video, video_id in zip(found["videos"], ids, strict=True):
        whole = get(api, path(video_id, "retention_curve"))
        assert {name: whole[name] for name in video} == video
        for place in range(9 if whole["points"] else 0):
            point = whole["points"][min(place * len(whole["points"]) // 8, len(whole["points"]) - 1)]
            point |= {"video_id": video_id, "percent": 12.5 * place}
            wanted.append({name: point[name] for name in found["points"][0]})
    assert found["points"] == wanted
    assert ask(api, "/compare", 404, video_id=["talk", "no such"])["type"] == "urn:retention:problem:unknown-video"
    assert ask(api, "/compare", video_id=["clip", "clip"]) == ask(api, "/compare", video_id="clip")
    assert ask(api, "/compare", 422)["errors"][0]["field"] == "query.video_id"


@pytest.mark.parametrize("video_id", [None, "talk"])
def test_concurrent_viewers_of_a_day_are_the_oracles_and_without_gaps(
    api: httpx.Client, sessions: list[oracle_engagement.Session], video_id: str | None
) -> None:
    viewers: dict[int, int] = {}
    for session in sessions:
        if session.view.counts and video_id in (None, session.video_id):
            for tick in session.view.instants():
                viewers[tick * 10] = viewers.get(tick * 10, 0) + 1
    one = {} if video_id is None else {"video_id": video_id}
    for day in (datetime(2026, 3, number, tzinfo=timezone.utc).date() for number in (15, 16, 18)):
        start = round(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp())
        there = {at: count for at, count in viewers.items() if start <= at < start + 86_400}
        found = ask(api, "/concurrent_viewers", day=day, **one)
        instants = [(epoch(instant["at"]), instant["concurrent_viewers"]) for instant in found["instants"]]
        assert instants == [(at, there.get(at, 0)) for at in range(min(there), max(there) + 1, 10)]
        assert (found["peak"], found["day"], found["video_id"]) == (max(there.values()), str(day), video_id)
        assert found["average"] == pytest.approx(sum(there.values()) / len(instants))
    assert ask(api, "/concurrent_viewers", **one)["day"] == "2026-03-18"
    empty = ask(api, "/concurrent_viewers", day="2020-01-01", **one)
    assert (empty["instants"], empty["average"], empty["reason"]["code"]) == ([], None, "nobody")


def test_nobody_ever_watched_what_nobody_watched(api: httpx.Client) -> None:
    found = ask(api, "/concurrent_viewers", video_id="nobody")
    assert (found["instants"], found["day"], found["reason"]["code"]) == ([], None, "nobody")
    for what in ("key_moments", "engagement_daily", "engagement_by_segment", "retention_curve"):
        assert get(api, path("nobody", what))["reason"]["code"] == "no_views"
    assert get(api, path("nobody", "retention_curve?source=live"))["reason"]["code"] == "nobody"


def epoch(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def test_the_last_hour_is_what_the_stream_says(api: httpx.Client, chain: Chain) -> None:
    now_ms, rng, events = round(time.time() * 1000), random.Random(5), []
    for viewer in range(40):
        # Nobody near a border that the test's own time moves.
        session = watch("talk" if viewer % 3 else "clip", 1000 + viewer, rng.randrange(2, 60), 75.5)
        ago = 9_000 if viewer % 4 == 0 else rng.randrange(120_000, HOUR_MS - 120_000)
        shift = now_ms - ago - session[-1]["event_time"]
        events += [event | {"event_time": event["event_time"] + shift, "playback_rate": 1} for event in session]
    chain.send_events(events)
    by_second = curve(events, now_ms)
    for video_id in ("talk", "clip"):
        found = get(api, path(video_id, "retention_curve?source=live"))
        rows = {second: row for (video, second), row in by_second.items() if video == video_id}
        seen = [(point["second"], (found["views"], point["watching_views"])) for point in found["points"]]
        assert seen == sorted(rows.items()) and found["source"] == "live"
        assert all(p["retention_rate"] == p["watching_views"] / found["views"] for p in found["points"])
    by_instant = concurrency(events, now_ms)
    for video_id in (None, "talk"):
        one = {} if video_id is None else {"video_id": video_id}
        answer = ask(api, "/concurrent_viewers", source="live", **one)
        told = {epoch(i["at"]): i["concurrent_viewers"] for i in answer["instants"] if i["concurrent_viewers"]}
        wanted: dict[int, int] = {}
        for (at, video), count in by_instant.items():
            if video_id in (None, video):
                wanted[at] = wanted.get(at, 0) + count
        assert {at: told[at] for at in told if at <= now_ms // 1000} == wanted
        assert answer["day"] is None and answer["peak"] == max(wanted.values())
    now = get(api, "/viewers_now")
    watched = viewers_now(events, now_ms)
    assert {video["video_id"]: video["viewers"] for video in now["videos"]} == watched
    assert now["viewers"] == sum(watched.values()) > 5
    for url in (path("talk", "retention_curve?source=live"), "/concurrent_viewers?source=live", "/viewers_now"):
        assert api.get(url).headers["cache-control"] == "no-store"


def test_rows_are_those_of_the_marts(api: httpx.Client, chain: Chain) -> None:
    for what, name, mart in (
        ("key_moments", "moments", "key_moments"),
        ("engagement_daily", "days", "engagement_daily"),
        ("engagement_by_segment", "segments", "engagement_by_segment"),
    ):
        rows = [row for row in chain.mart(mart).values() if row["video_id"] == "talk"]
        found = get(api, path("talk", what))[name]
        assert len(found) == len(rows) > 1
        for row in found:
            same = [known for known in rows if all(str(known[column]) == str(row[column]) for column in keys(mart))]
            assert len(same) == 1
            for column, value in row.items():
                if isinstance(value, float):
                    assert value == pytest.approx(same[0][column])
                elif not isinstance(value, str):
                    assert value == same[0][column], column
    assert get(api, path("clip", "key_moments"))["reason"]["code"] == "too_few_views"


def keys(mart: str) -> tuple[str, ...]:
    return {
        "key_moments": ("moment_id", "kind", "chapter"),
        "engagement_daily": ("day",),
        "engagement_by_segment": ("dimension", "value"),
    }[mart]


def test_the_overview_is_the_curves_and_the_oracles_weeks(
    api: httpx.Client, sessions: list[oracle_engagement.Session]
) -> None:
    found = ask(api, "/overview", sort="average_view_percentage", limit=3)
    listed = ask(api, "/videos", sort="average_view_percentage", limit=3)
    assert [video["video_id"] for video in found["videos"]] == [video["video_id"] for video in listed["videos"]]
    assert {name: found[name] for name in ("total", "totals")} == {name: listed[name] for name in ("total", "totals")}
    newest = max(session.day for session in sessions)
    changed = 0
    for video, item in zip(found["videos"], listed["videos"], strict=True):
        assert {name: video[name] for name in item} == item
        rates = [point["retention_rate"] for point in get(api, path(video["video_id"], "retention_curve"))["points"]]
        assert video["sparkline"] == [rates[place * (len(rates) - 1) // 24] for place in range(25)]
        for name, ages in (("week", range(1, 8)), ("week_before", range(8, 15))):
            of_week = [
                session
                for session in sessions
                if session.video_id == video["video_id"] and session.view.counts and (newest - session.day).days in ages
            ]
            wanted = oracle_engagement.engagement(of_week)["average_view_percentage"] if of_week else None
            assert_same(video, {f"views_{name}": len(of_week), f"average_view_percentage_{name}": wanted})
            changed += name == "week_before" and len(of_week) > 0
    assert changed, "the data tests nothing"
    empty = next(v for v in ask(api, "/overview", search="nobody")["videos"] if v["video_id"] == "nobody")
    assert (empty["sparkline"], empty["views_week"], empty["average_view_percentage_week"]) == ([], 0, None)


def test_too_few_videos_to_compare_with_are_not_typical(api: httpx.Client) -> None:
    found = get(api, path("talk", "typical"))
    assert (found["peers"], found["videos"], found["completion_rate"]) == (None, 0, None)
    assert get(api, path("no such", "typical"), 404)["type"] == "urn:retention:problem:unknown-video"


def test_what_is_in_no_figure_is_told(api: httpx.Client, chain: Chain) -> None:
    everything = get(api, "/data_quality")
    assert {figure["figure"] for figure in everything["figures"]} >= {"implausible_sessions", "invalid_intervals"}
    one = ask(api, "/data_quality", video_id="talk")
    assert one["video_id"] == "talk" and len(one["figures"]) <= len(everything["figures"])
    intervals = next(f for f in one["figures"] if f["figure"] == "invalid_intervals")
    assert (intervals["found"], intervals["out_of"]) == (0, sum(e["video_id"] == "talk" for e in HISTORY))
    assert ask(api, "/data_quality", 404, video_id="no such")["status"] == 404


def test_the_report_is_the_commands(api: httpx.Client, chain: Chain) -> None:
    for kind, media in (("md", "text/markdown"), ("html", "text/html"), ("svg", "image/svg+xml")):
        answer = api.get(path("talk", f"report?format={kind}"))
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(media)
        assert "<b>One" not in answer.text
    rows = read(asking(chain.client), "talk")
    wanted = report_for(rows, "talk", made_at=datetime.now(timezone.utc), picture="report?format=svg")

    def body(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("- Read from the marts: ")]

    assert body(api.get(path("talk", "report")).text) == body(wanted)
    assert get(api, path("no such", "report"), 404)["type"] == "urn:retention:problem:unknown-video"
    assert get(api, path("talk", "report?format=pdf"), 422)["errors"][0]["field"] == "query.format"


@pytest.mark.parametrize(
    ("url", "field"),
    [
        (path("talk", "retention_curve?first_day=2026-02-30"), "query.first_day"),
        (path("talk", "retention_curve?first_day=2026-03-02&last_day=2026-03-01"), "query.last_day"),
        (path("talk", "retention_curve?viewer_type=old"), "query.viewer_type.0"),
        (path("talk", "retention_curve?points=1"), "query.points"),
        (path("talk", "retention_curve?points=1e9"), "query.points"),
        (path("talk", "retention_curve?source=live&country=DE"), "query.source"),
        (path("talk", "engagement_summary?" + "&".join(["country=x"] * 51)), "query.country"),
        (path("talk", "engagement_summary?country=" + "x" * 257), "query.country.0"),
        ("/concurrent_viewers?day=2026-03-01&source=live", "query.day"),
        ("/concurrent_viewers?day=1969-12-31", "query.day"),
        ("/compare?video_id=talk&points=1", "query.points"),
    ],
    ids=lambda value: value[:60],
)
def test_a_bad_parameter_is_a_problem_that_names_it(api: httpx.Client, url: str, field: str) -> None:
    answer = api.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_whatever_is_asked_the_answer_is_as_described(api: httpx.Client) -> None:
    described = schemathesis.openapi.from_url(f"{api.base_url}/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) > 12
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def answers_as_described(case: schemathesis.Case) -> None:
            # No schema can say that one day is not before another.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        answers_as_described()
