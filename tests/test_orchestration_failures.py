"""How failures are told and judged: transient or not, in one line, and how dbt's and Dagster's own are worded."""

from __future__ import annotations

import pytest

from retention_platform.orchestration.dbt_run import NodeResult, failure_of
from retention_platform.orchestration.failures import failure_line, first_sentence, is_transient
from retention_platform.orchestration.launch import NotLoaded, find_job
from retention_platform.orchestration.models import build_arguments

GONE = "HTTPConnectionPool(host='127.0.0.1'): Max retries exceeded (Connection refused)"


@pytest.mark.parametrize("code", [159, 202, 209, 210, 241])
def test_codes_of_load_and_network_pass(code: int) -> None:
    assert is_transient(f"HTTP driver received status 500, code: {code}: DB::Exception: something")
    assert is_transient(f"Code: {code}. DB::Exception: something")


@pytest.mark.parametrize("code", [47, 60, 62, 516])
def test_codes_of_wrong_queries_and_passwords_do_not_pass_whatever_the_words(code: int) -> None:
    assert not is_transient(f"Code: {code}. DB::Exception: table timed_out, connection refused")


@pytest.mark.parametrize("text", [GONE, "Connection reset by peer", "Read timed out", "Remote end closed connection"])
def test_a_server_that_is_away_passes(text: str) -> None:
    assert is_transient(text)


def test_an_error_that_speaks_of_neither_does_not_pass() -> None:
    assert not is_transient("Compilation Error: 'stg_videos' is undefined")


def test_a_build_passes_only_when_all_its_errors_may() -> None:
    away = NodeResult("int_views", "error", GONE)
    wrong = NodeResult("videos", "error", "Code: 47. DB::Exception: unknown identifier")
    skipped = NodeResult("dropoff_points", "skipped", "")
    assert failure_of("build", [away, skipped], None).transient
    assert not failure_of("build", [away, wrong, skipped], None).transient


def test_a_data_test_that_found_rows_never_passes_by_itself() -> None:
    assert not failure_of("build", [NodeResult("unique_videos", "fail", "Got 3 results, timed out")], None).transient


def test_a_failed_build_tells_how_much_failed_and_the_first_reason_in_one_line() -> None:
    results = [
        NodeResult("stg_videos", "success", "OK"),
        NodeResult("int_views", "error", "Code: 47.\n  DB::Exception:\n  unknown identifier"),
        NodeResult("dropoff_points", "skipped", ""),
    ]
    assert str(failure_of("build", results, None)) == (
        "dbt build: 1 of 3 failed; int_views: Code: 47. DB::Exception: unknown identifier"
    )


def test_an_exception_of_dbt_itself_is_told_when_nothing_was_built() -> None:
    error = failure_of("build", [], ConnectionError("Connection refused"))
    assert str(error) == "dbt build: Connection refused" and error.transient


def test_a_failed_run_is_told_by_the_first_reason_that_says_something() -> None:
    line = failure_line("marts", "0123456789abcdef", ["", "  \n", "dagster.Failure: ClickHouse is away\n  at line 3"])
    assert line == "run 01234567 of marts failed: ClickHouse is away"


def test_a_reason_has_one_line_without_its_class_and_at_most_500_characters() -> None:
    assert first_sentence("some.module.ValueError: it is wrong\nTraceback …") == "it is wrong"
    assert len(first_sentence("x" * 900)) == 500


def test_dbt_tests_run_in_every_build_and_unit_tests_in_none() -> None:
    arguments = build_arguments(full_refresh=False, selection=["--select", "fqn:*"])
    assert arguments == ["build", "--exclude-resource-type", "unit_test", "--select", "fqn:*"]
    assert "--full-refresh" in build_arguments(full_refresh=True, selection=[])


def location(**loaded: object) -> dict[str, object]:
    """A code location as Dagster's GraphQL gives it."""
    return {"locationEntries": [{"name": "retention", "loadStatus": "LOADED", "locationOrLoadError": loaded}]}


def test_a_job_is_found_by_its_location_and_repository() -> None:
    workspace = location(repositories=[{"name": "__repository__", "jobs": [{"name": "watch"}, {"name": "marts"}]}])
    assert find_job(workspace, "marts") == {
        "repositoryLocationName": "retention",
        "repositoryName": "__repository__",
        "pipelineName": "marts",
    }


def test_a_job_that_loaded_code_does_not_define_is_not_waited_for() -> None:
    found = find_job(location(repositories=[{"name": "r", "jobs": [{"name": "watch"}]}]), "marts")
    assert isinstance(found, NotLoaded) and not found.may_come


def test_a_job_of_a_code_server_that_is_still_starting_is_waited_for_and_the_reason_kept() -> None:
    found = find_job(location(message="could not connect:\n connection refused"), "marts")
    assert isinstance(found, NotLoaded) and found.may_come
    assert "retention could not connect: connection refused" in found.reason
    loading = {"locationEntries": [{"name": "retention", "loadStatus": "LOADING", "locationOrLoadError": None}]}
    assert find_job(loading, "marts") == NotLoaded(
        "retention is being loaded (more on its Deployment page)", may_come=True
    )
