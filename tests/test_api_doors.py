"""What happens to every request: ids, log, figures, keys, the rate limit and other origins. No ClickHouse is needed."""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from retention_platform.api.app import create_app
from retention_platform.api.middleware import is_known
from retention_platform.api.tables import Format, accepted
from retention_platform.settings import load_settings
from tests.api_support import free_port

OPEN = ["/", "/health", "/docs", "/openapi.json"]


@pytest.fixture
def make(tmp_path: Path):
    """Makes an API with the given settings; its ClickHouse is nowhere."""

    def app(**settings: object) -> TestClient:
        away = {"retention_home": tmp_path, "clickhouse_port": free_port(), "dagster_port": free_port()}
        return TestClient(create_app(load_settings(**away, **settings)), raise_server_exceptions=False)

    return app


def test_every_answer_has_an_id_and_a_usable_one_of_the_client_is_kept(make) -> None:
    with make() as api:
        made = [api.get(path).headers["x-request-id"] for path in ("/", "/nowhere", "/videos?limit=no", "/videos")]
        assert len(set(made)) == 4 and all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
        assert api.get("/", headers={"X-Request-ID": "job-7.retry_2"}).headers["x-request-id"] == "job-7.retry_2"
        for forged in ("two words", "x" * 65, "a;b", "\u001b[2J"):
            kept = api.get("/", headers={"X-Request-ID": forged.encode()}).headers["x-request-id"]
            assert re.fullmatch("[0-9a-f]{32}", kept), forged


def test_the_access_log_has_one_printable_line_a_request(make, caplog: pytest.LogCaptureFixture) -> None:
    with make() as api, caplog.at_level(logging.INFO, "retention.access"):
        api.get("/health", headers={"X-Request-ID": "me"})
        api.get("/video/%0a%1b%5b2J%20GET/retention_curve?secret=1")
    lines = [record.getMessage() for record in caplog.records if record.name == "retention.access"]
    assert re.fullmatch(r"GET /health 503 \d+\.\d ms \d+ B id=me", lines[0])
    assert re.fullmatch(r"GET /video/%0a%1b%5b2J%20GET/retention_curve 503 \d+\.\d ms \d+ B id=[0-9a-f]{32}", lines[1])
    assert len(lines) == 2


def test_without_a_key_only_what_it_is_and_whether_it_lives_is_told(make) -> None:
    with make(api_keys="one-key, other-key") as api:
        for path in OPEN:
            assert api.get(path).status_code in (200, 503), path
        for headers in (
            {},
            {"X-API-Key": "one"},
            {"X-API-Key": "one-key, other-key"},
            {"Authorization": "Basic one-key"},
        ):
            for path in ("/videos", "/metrics", "/video/a/retention_curve", "/nowhere"):
                answer = api.get(path, headers=headers)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["type"] == "urn:retention:problem:unauthorized"
                assert "one-key" not in answer.text
        for headers in ({"X-API-Key": "one-key"}, {"Authorization": "Bearer other-key"}):
            assert api.get("/videos", headers=headers).status_code == 503, "past the door, and there is no ClickHouse"


def test_a_key_is_known_only_whole() -> None:
    assert is_known(b"abc", (b"xyz", b"abc"))
    for given in (None, b"", b"ab", b"abcd", b"ABC"):
        assert not is_known(given, (b"xyz", b"abc"))


def test_a_client_may_ask_so_often_a_minute_and_is_told_when_again(make) -> None:
    with make(api_rate_limit=5) as api:
        answers = [api.get("/metrics") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert answers[-1].json()["type"] == "urn:retention:problem:too-many-requests"
        assert api.get("/health").status_code == 503, "whoever watches is never turned away"


def test_each_key_has_a_rate_of_its_own(make) -> None:
    with make(api_rate_limit=2, api_keys="a,b") as api:
        statuses = [api.get("/metrics", headers={"X-API-Key": key}).status_code for key in ("a", "a", "a", "b")]
    assert statuses == [200, 200, 429, 200]


def test_pages_of_configured_origins_may_ask_and_others_may_not(make) -> None:
    with make(api_cors_origins="https://dash.example, https://b.example", api_keys="k") as api:
        asked = {"Origin": "https://dash.example", "Access-Control-Request-Method": "GET"}
        preflight = api.options("/videos", headers={**asked, "Access-Control-Request-Headers": "X-API-Key"})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://dash.example"
        # Refusals too, or the page could not tell why.
        assert api.get("/videos", headers=asked).headers["access-control-allow-origin"] == "https://dash.example"
        assert "access-control-allow-origin" not in api.get("/", headers={"Origin": "https://evil.example"}).headers
    with make() as api:
        assert "access-control-allow-origin" not in api.get("/", headers=asked).headers


def test_prometheus_reads_the_figures(make) -> None:
    with make() as api:
        api.get("/video/a/retention_curve")
        api.get("/video/b/retention_curve")
        api.get("/nowhere")
        answer = api.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    curve = "/video/{video_id:video_id}/retention_curve"
    asked = ("retention_api_requests_total", ("method", "GET"))
    assert samples[(*asked, ("path", curve), ("status", "503"))] == 2
    assert samples[(*asked, ("path", "none"), ("status", "404"))] == 1
    assert samples[("retention_api_request_seconds_count", ("path", curve))] == 2
    assert samples[("retention_up", ("part", "clickhouse"))] == 0
    for unknown in ("retention_marts_age_seconds", "retention_ingest_lag_messages", "retention_rejected_messages"):
        assert samples[(unknown,)] != samples[(unknown,)], "nobody could say: not a number"


def test_the_accept_header_chooses_by_its_weights() -> None:
    csv, json, parquet = "text/csv", "application/json", "application/vnd.apache.parquet"
    assert accepted("") is accepted("*/*") is accepted("text/html,*/*;q=0.8") is Format.JSON
    assert accepted(csv) is accepted(f"{json};q=0.5, {csv}") is accepted(f"TEXT/CSV , {json}") is Format.CSV
    assert accepted(f"{csv};q=0.2,{parquet};q=0.9,{json};q=0.3") is Format.PARQUET
    for odd in itertools.chain(("q=,;,", f"{csv};q=nan", f";{csv}", f"{csv}/{csv}"), map("a".__mul__, (1, 10_000))):
        assert accepted(odd) in set(Format)


def test_a_wrong_method_has_an_id_too(make) -> None:
    with make() as api:
        answer: httpx.Response = api.post("/videos")
    assert (answer.status_code, len(answer.headers["x-request-id"])) == (405, 32)
