"""The API over marts that dbt built on the real engine: its figures are the oracle's, whatever an id looks like."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from typing import Any, get_args

import httpx
import pyarrow.parquet
import pytest
from clickhouse_connect.driver.binding import bind_query

from retention_platform.api import queries
from retention_platform.api.models.curves import RetentionCurve
from retention_platform.api.models.moments import SignificantDropoffs
from retention_platform.api.models.videos import VideoList
from retention_platform.api.warehouse import escaped
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests import oracle
from tests.api_support import describe, path, serving, wait_until, watch
from tests.conftest import DATABASES
from tests.dbt_support import Chain

#: Ids that break what is put together by hand: paths, URLs, SQL text, ClickHouse's own escapes and parameters.
HOSTILE = [
    "o'brien",
    '" or 1=1 --',
    "'; drop table marts.videos; --",
    "' union all select * from system.users --",
    "a/b",
    "a/retention_curve",
    "/",
    "видео 🎬",
    "tab\tand\nline\r\n",
    "back\\slash \\n \\x41 \\N",
    "%2F",
    "%",
    "{video_id:String}",
    "nul\x00nul",
    "?limit=1#part",
    " space ",
    "<script>alert(1)</script>",
    "x" * 256,
]


#: What there is of one video.
OF_ONE_VIDEO = (
    "retention_curve",
    "significant_dropoffs",
    "key_moments",
    "engagement_summary",
    "engagement_daily",
    "engagement_by_segment",
    "report",
)

PUBLISHED_MS = 1_700_000_000_000


def _everything() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rng, events, videos = random.Random(7), [], []
    for number, video_id in enumerate(HOSTILE):
        # Each id has a number of views of its own, so that no answer can be another's.
        for viewer in range(number + 1):
            events += watch(video_id, viewer, 2 + viewer % 5, 12.5)
    for viewer in range(40):
        events += watch("few", viewer, rng.randrange(1, 60), 60)
    for viewer in range(150):
        events += watch("calm", viewer, 1 + viewer * 119 / 150, 120)
        events += watch("short", viewer, rng.randrange(1, 9), 8)
        leaves_at = 60.5 if viewer % 3 == 0 else 200 if viewer % 3 == 1 else rng.randrange(1, 200)
        events += watch("cliff", viewer, leaves_at, 200)
    chapters = [{"start_ms": 0, "title": "Hello"}, {"start_ms": 50_000, "title": "<b>Middle</b>"}]
    videos.append(
        describe("cliff", duration_ms=200_000, chapters=chapters, category="talks", published_at=PUBLISHED_MS)
    )
    videos.append(describe("nobody", duration_ms=90_000))
    videos.append(describe("nobody knows how long"))
    return events, videos


EVENTS, VIDEOS = _everything()


@pytest.fixture(scope="module")
def api(clickhouse_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("api")
    settings = load_settings(retention_home=home, clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port)
    client = connect(settings)
    for database in DATABASES:
        client.command(f"drop database if exists {database} sync")
    migrate(client)
    client.close()
    chain = Chain(settings, home)
    chain.send_events(EVENTS)
    chain.send_videos(VIDEOS)
    chain.build()
    chain.client.close()
    with serving(settings) as served:
        yield served


@pytest.fixture(scope="module")
def expected() -> oracle.Marts:
    return oracle.marts(EVENTS, VIDEOS)


def get(api: httpx.Client, url: str, status: int = 200) -> Any:
    answer = api.get(url)
    assert answer.status_code == status, answer.text
    return answer.json()


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        here = found[name]
        if name in ("first_event_at", "last_event_at") and value is not None:
            here = round(datetime.fromisoformat(here.replace("Z", "+00:00")).timestamp() * 1000)
        if isinstance(value, Fraction | float):
            assert here == pytest.approx(float(value), rel=1e-6, abs=1e-9), name
        else:
            assert here == value, name


def test_every_curve_is_the_oracles_second_by_second(api: httpx.Client, expected: oracle.Marts) -> None:
    for video_id in expected.videos:
        found = get(api, path(video_id, "retention_curve"))
        wanted = [row for (owner, _), row in sorted(expected.retention_curve.items()) if owner == video_id]
        assert [point["second"] for point in found["points"]] == list(range(len(wanted))), video_id
        for point, row in zip(found["points"], wanted, strict=True):
            assert_same(point, {k: v for k, v in row.items() if k != "views"})
        assert found["views"] == expected.engagement_summary[video_id]["views"]
        assert (found["reason"] is None) == bool(wanted)


def test_every_summary_is_the_oracles(api: httpx.Client, expected: oracle.Marts) -> None:
    for video_id, row in expected.engagement_summary.items():
        found = get(api, path(video_id, "engagement_summary"))
        assert_same(found, row)
        video = expected.videos[video_id]
        assert found["video_id"] == video_id
        assert_same(found, {name: video[name] for name in ("title", "category", "duration_s", "duration_source")})
        chapters = json.dumps([[chapter["start_ms"], chapter["title"]] for chapter in found["chapters"]])
        assert chapters == video["chapters"]


def test_every_dropoff_is_the_oracles(api: httpx.Client, expected: oracle.Marts) -> None:
    assert expected.dropoff_points, "the data tests nothing"
    for video_id in expected.videos:
        found = get(api, path(video_id, "significant_dropoffs"))
        wanted = [row for (owner, _), row in sorted(expected.dropoff_points.items()) if owner == video_id]
        assert len(found["dropoffs"]) == len(wanted), video_id
        for dropoff, row in zip(found["dropoffs"], wanted, strict=True):
            assert_same(dropoff, row)
        assert (found["reason"] is None) == bool(wanted)


@pytest.mark.parametrize("video_id", HOSTILE, ids=ascii)
def test_an_id_is_never_anything_but_an_id(api: httpx.Client, video_id: str) -> None:
    views = HOSTILE.index(video_id) + 1
    for what in OF_ONE_VIDEO:
        if what != "report":
            found = get(api, path(video_id, what))
            assert (found["video_id"], found["views"]) == (video_id, views)
        absent = get(api, path(video_id[:-1] + "~", what), 404)
        assert absent["type"] == "urn:retention:problem:unknown-video"


@pytest.mark.parametrize("video_id", HOSTILE, ids=ascii)
def test_an_id_travels_beside_the_query_and_every_byte_of_it_escaped(video_id: str) -> None:
    # The embedded engine forgives a bare tab or line end in a parameter; a ClickHouse server does not.
    query, sent = bind_query(queries.ONE_VIDEO, escaped({"video_id": video_id}))
    assert query == queries.ONE_VIDEO
    assert re.fullmatch(r"(\\x[0-9a-f]{2})+", sent["param_video_id"])
    assert bytes.fromhex(sent["param_video_id"].replace("\\x", "")).decode() == video_id


@pytest.mark.parametrize(
    ("video_id", "code"),
    [
        ("nobody", "no_views"),
        ("few", "too_few_views"),
        ("short", "video_too_short"),
        ("calm", "none_significant"),
    ],
)
def test_no_dropoffs_come_with_the_reason(api: httpx.Client, video_id: str, code: str) -> None:
    found = get(api, path(video_id, "significant_dropoffs"))
    assert found["dropoffs"] == []
    assert found["reason"]["code"] == code


def test_a_described_video_without_views_is_empty_and_says_why(api: httpx.Client) -> None:
    for video_id in ("nobody", "nobody knows how long"):
        curve = get(api, path(video_id, "retention_curve"))
        assert (curve["points"], curve["views"], curve["reason"]["code"]) == ([], 0, "no_views")
        summary = get(api, path(video_id, "engagement_summary"))
        assert (summary["views"], summary["watch_time_s"], summary["reason"]["code"]) == (0, 0, "no_views")
        ratios = ["average_view_duration_s", "average_view_percentage", "completion_rate", "hook_retention_3s"]
        assert [summary[name] for name in [*ratios, "rewatch_rate", "seeks_per_view", "first_event_at"]] == [None] * 7


def test_a_second_that_nobody_watched_is_a_zero(api: httpx.Client) -> None:
    last = get(api, path("a/b", "retention_curve"))["points"][-1]
    assert (last["second"], last["watching_views"], last["retention_rate"]) == (12, 0, 0)
    assert (last["rewatch_ratio"], last["skip_rate"], last["exit_hazard"]) == (None, None, None)


def test_the_list_is_whole_and_ordered_whatever_the_pages(api: httpx.Client, expected: oracle.Marts) -> None:
    pages, offset = [], 0
    while True:
        page = get(api, f"/videos?limit=4&offset={offset}")
        assert (page["total"], page["limit"], page["offset"]) == (len(expected.videos), 4, offset)
        if not page["videos"]:
            break
        pages += page["videos"]
        offset += 4
    views = {video_id: row["views"] for video_id, row in expected.engagement_summary.items()}
    wanted = sorted(views, key=lambda video_id: (-views[video_id], video_id.encode()))
    assert [video["video_id"] for video in pages] == wanted
    assert get(api, "/videos")["videos"] == pages
    for video in pages:
        row = {**expected.videos[video["video_id"]], **expected.engagement_summary[video["video_id"]]}
        assert_same(video, {name: row[name] for name in video if name not in ("video_id", "published_at")})


def test_times_are_utc_and_say_so(api: httpx.Client) -> None:
    summary = get(api, path("cliff", "engagement_summary"))
    assert summary["published_at"] == "2023-11-14T22:13:20Z"
    assert all(summary[name].endswith("Z") for name in ("first_event_at", "last_event_at", "computed_at"))


@pytest.mark.parametrize(
    "url",
    [
        "/videos?limit=0",
        "/videos?limit=1001",
        "/videos?limit=ten",
        "/videos?limit=1e400",
        "/videos?limit=NaN",
        "/videos?offset=-1",
        "/videos?offset=4294967296",
        f"/videos?offset={'9' * 5000}",
        path("x" * 257, "retention_curve"),
    ],
    ids=lambda url: url[:40],
)
def test_a_bad_parameter_is_a_problem_that_names_it(api: httpx.Client, url: str) -> None:
    answer = api.get(url)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 422
    field = "path.video_id" if "video/" in url else "query." + url.partition("?")[2].partition("=")[0]
    assert [error["field"] for error in problem["errors"]] == [field]
    assert field in problem["detail"]


@pytest.mark.parametrize("url", ["/nope", "/video/few", "/video//retention_curve", "/video/few/nope", "/%00", "/%FF"])
def test_a_path_that_is_not_there_is_a_problem(api: httpx.Client, url: str) -> None:
    answer = api.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert (answer.json()["status"], answer.json()["instance"]) == (404, url)


def test_a_search_finds_titles_and_ids_whatever_the_case(api: httpx.Client, expected: oracle.Marts) -> None:
    for text in ("CLIFF", "видео", "О", "no", "%", "'", "nul\x00", "", "not there at all"):
        wanted = {
            video_id
            for video_id, video in expected.videos.items()
            if text.lower() in video_id.lower() or text.lower() in (video["title"] or "").lower()
        }
        found = api.get("/videos", params={"search": text, "limit": 1000}).json()
        assert {video["video_id"] for video in found["videos"]} == wanted, text
        summaries = [expected.engagement_summary[video_id] for video_id in wanted]
        assert found["total"] == found["totals"]["videos"] == len(wanted)
        assert found["totals"]["views"] == sum(summary["views"] for summary in summaries)
        watched = float(sum(summary["watch_time_s"] for summary in summaries))
        assert found["totals"]["watch_time_s"] == pytest.approx(watched)


@pytest.mark.parametrize("sort", get_args(queries.Sort))
@pytest.mark.parametrize("order", ["asc", "desc", None])
def test_the_list_is_in_the_order_asked_for_and_what_has_no_figure_is_last(
    api: httpx.Client, sort: str, order: str | None
) -> None:
    found = api.get("/videos", params={"sort": sort, "limit": 1000} | ({"order": order} if order else {})).json()
    keys = [video[sort] for video in found["videos"]]
    known = [key.lower() if isinstance(key, str) else key for key in keys if key is not None]
    assert keys[len(known) :] == [None] * (len(keys) - len(known))
    assert known == sorted(known, reverse=(order or ("asc" if sort == "title" else "desc")) == "desc")


def test_who_has_this_version_of_the_marts_is_told_so(api: httpx.Client) -> None:
    for url in ("/videos", path("cliff", "retention_curve"), path("cliff", "significant_dropoffs")):
        first = api.get(url)
        tag = first.headers["etag"]
        again = api.get(url, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert api.get(url, headers={"If-None-Match": 'W/"other"'}).content == first.content
        csv = api.get(url, headers={"If-None-Match": tag, "Accept": "text/csv"})
        assert (csv.status_code, csv.headers["vary"]) == (200, "Accept, Authorization, X-API-Key")


def test_the_version_is_another_after_the_marts_changed(api: httpx.Client, clickhouse_port: int) -> None:
    url = path("cliff", "retention_curve")
    tag = api.get(url).headers["etag"]
    client = connect(load_settings(clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port))
    client.command("create table marts.changed (x UInt8) engine = MergeTree order by x")
    try:
        client.command("insert into marts.changed values (1)")
        wait_until(lambda: api.get(url, headers={"If-None-Match": tag}).status_code == 200, 10)
    finally:
        client.command("drop table marts.changed sync")
        client.close()


def test_tables_can_be_had_as_csv_and_parquet_with_the_same_figures(api: httpx.Client) -> None:
    for url, name in (
        ("/videos", "videos"),
        (path("cliff", "retention_curve"), "points"),
        (path("cliff", "significant_dropoffs"), "dropoffs"),
    ):
        rows = get(api, url)[name]
        for asked in ({"headers": {"Accept": "text/csv"}}, {"params": {"format": "csv"}}):
            answer = api.get(url, **asked)
            assert answer.headers["content-type"].startswith("text/csv")
            assert answer.headers["content-disposition"].endswith('.csv"')
            read = list(csv.DictReader(io.StringIO(answer.text)))
            assert len(read) == len(rows) > 0 and read[0].keys() == rows[0].keys()
            for row, wanted in zip(read, rows, strict=True):
                for field, value in wanted.items():
                    if value is None:
                        assert row[field] == ""
                    elif isinstance(value, float):
                        assert float(row[field]) == pytest.approx(value)
                    elif isinstance(value, int) and not isinstance(value, bool):
                        assert int(row[field]) == value
        answer = api.get(url, params={"format": "parquet"}, headers={"Accept": "application/json"})
        table = pyarrow.parquet.read_table(io.BytesIO(answer.content))
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        assert table.column_names == list(rows[0])
        number = next(field for field, value in rows[0].items() if isinstance(value, int))
        assert table[number].to_pylist() == [row[number] for row in rows]
    assert api.get(path("nobody at all", "retention_curve"), params={"format": "csv"}).status_code == 404
    assert api.get("/videos", params={"format": "xlsx"}).status_code == 422


def test_all_of_it_can_be_asked_for_by_a_user_who_may_only_read(api: httpx.Client, clickhouse_port: int) -> None:
    some = {"first_day": "2020-01-01", "device_type": "mobile"}
    asked: list[tuple[str, dict[str, Any]]] = [("/videos", {}), ("/overview", {}), ("/concurrent_viewers", {})]
    asked += [("/compare", {"video_id": ["cliff"]}), ("/data_quality", {}), (path("cliff", "retention_curve"), some)]
    asked += [(path("cliff", "retention_curve"), {"format": kind, "points": 5}) for kind in ("json", "csv", "parquet")]
    asked += [(path("cliff", name), {}) for name in ("significant_dropoffs", "key_moments", "typical", "insights")]
    asked += [(path("cliff", name), {}) for name in ("engagement_daily", "engagement_by_segment")]
    asked += [(path("cliff", "engagement_summary"), some), (path("cliff", "retention_curve"), {"source": "live"})]
    asked += [(path("cliff", "retention_curve_by_segment"), {"dimension": "country"}), (path("cliff", "report"), {})]
    reader = load_settings(clickhouse_host="127.0.0.1", clickhouse_port=clickhouse_port, clickhouse_user="api")
    with serving(reader) as by_reader:
        for url, parameters in asked:
            answer = by_reader.get(url, params=parameters)
            assert answer.status_code == 200, (url, answer.text)
            assert answer.headers["content-type"] == api.get(url, params=parameters).headers["content-type"]
        assert by_reader.get("/viewers_now").status_code == by_reader.get("/metrics").status_code == 200


def test_a_file_has_a_name_that_no_id_can_break(api: httpx.Client) -> None:
    for video_id in HOSTILE:
        answer = api.get(path(video_id, "retention_curve"), params={"format": "csv"})
        name = re.fullmatch(r'attachment; filename="([^"]+)"', answer.headers["content-disposition"])
        assert name and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.csv", name[1]), video_id


def test_what_passes_through_is_what_the_page_describes(api: httpx.Client) -> None:
    VideoList.model_validate(get(api, "/videos"))
    for video_id in ("cliff", "nobody", "few", *HOSTILE):
        RetentionCurve.model_validate(get(api, path(video_id, "retention_curve")))
        SignificantDropoffs.model_validate(get(api, path(video_id, "significant_dropoffs")))


def test_the_service_only_reads(api: httpx.Client) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = api.request(method, "/videos")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_index_links_to_paths_that_answer(api: httpx.Client) -> None:
    links = get(api, "/")["links"]
    assert {"health", "videos", "retention_curve", "significant_dropoffs", "engagement_summary"} <= links.keys()
    for name, link in links.items():
        assert api.get(link.format(video_id="cliff")).status_code == 200, name


def test_every_path_and_field_is_described(api: httpx.Client) -> None:
    document = get(api, "/openapi.json")
    assert set(document["paths"]) == {
        "/",
        "/health",
        "/metrics",
        "/videos",
        "/compare",
        "/concurrent_viewers",
        "/viewers_now",
        "/data_quality",
        "/overview",
        "/runs",
        "/video/{video_id}/insights",
        "/video/{video_id}/typical",
        "/video/{video_id}/retention_curve_by_segment",
        *(f"/video/{{video_id}}/{what}" for what in OF_ONE_VIDEO),
    }
    for name, schema in document["components"]["schemas"].items():
        for field, said in schema.get("properties", {}).items():
            assert said.get("description"), f"{name}.{field}"
    for address, operations in document["paths"].items():
        if "{video_id}" in address:
            assert {"200", "404", "422", "503"} <= operations["get"]["responses"].keys()
            assert list(operations["get"]["responses"]["404"]["content"]) == ["application/problem+json"]
