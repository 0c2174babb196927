"""The real `openai` client against a server that speaks the protocol and misbehaves in every way that they do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from retention_platform.insights.analyse import Analyst, cost_of, is_news
from retention_platform.insights.facts import facts_of
from retention_platform.insights.prompt import PROMPT_VERSION
from retention_platform.insights.rules import RULES_VERSION, analysis_of
from retention_platform.insights.schema import Insights, Usage
from retention_platform.insights.store import Kept
from retention_platform.settings import Settings, load_settings
from tests.insights_support import (
    Reply,
    Server,
    changed,
    completion,
    failure,
    insights_of,
    serving_model,
    troubled_facts,
    video_rows,
)

FACTS = troubled_facts()
RULES = analysis_of(FACTS)
#: What a good model might say: no rule's words.
SAID = changed(RULES, headline="Mobile viewers leave at 5:18", summary="At 5:18 views end: 125 of 578.")
GOOD = completion(SAID.model_dump_json())
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client believes proxies of the environment."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


def settings_for(server: Server | str, **more: Any) -> Settings:
    url = server if isinstance(server, str) else server.url
    return load_settings(openai_api_key=KEY, openai_base_url=url, openai_model="test-model", **more)


def made(*replies: Any, **more: Any) -> tuple[Insights, Server]:
    """Insights of the facts when the server replies so."""
    with serving_model(*replies) as server:
        one = Analyst(settings_for(server, **more))
        return one.insights("a video", FACTS), server


def assert_demo(insights: Insights, *said: str) -> None:
    """Made by rules, with a note in one line that says so and why, and never shows the key."""
    assert insights.mode == "demo" and insights.analysis == RULES and insights.model == RULES_VERSION
    assert insights.note.startswith("made by rules, since ") and "\n" not in insights.note
    assert all(part in insights.note for part in said), insights.note
    assert KEY not in insights.model_dump_json() and "0123456789" not in insights.note


def parts_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts_of(part)


def test_a_good_answer_is_the_analysis_and_tells_who_made_it() -> None:
    insights, server = made(GOOD)
    assert (insights.mode, insights.model, insights.prompt_version, insights.note) == ("openai", "test-model", "v1", "")
    assert insights.analysis == SAID and insights.usage == Usage(calls=1, input_tokens=1000, output_tokens=200)
    (request,) = server.requests
    assert server.keys == [f"Bearer {KEY}"] and request["model"] == "test-model"
    described = request["response_format"]["json_schema"]
    assert described["strict"] is True and '"description": "What to do."' in json.dumps(described)
    assert all(set(part) == {"$ref"} for part in parts_of(described) if "$ref" in part), (
        "OpenAI takes nothing beside it"
    )
    system, user = request["messages"]
    assert system["role"] == "system" and "untrusted_" in system["content"] and user["role"] == "user"
    asked = json.loads(user["content"])
    assert asked["critical_moment_ids"] == [moment.moment_id for moment in FACTS.critical]


def test_without_a_key_nobody_is_asked() -> None:
    with serving_model(GOOD) as server:
        for settings in (load_settings(openai_base_url=server.url), settings_for(server)):
            one = Analyst(settings, demo=bool(settings.openai_api_key.get_secret_value()))
            insights = one.insights("a video", FACTS)
            assert insights.mode == "demo" and insights.note == "" and one.usage == Usage()
        assert not server.requests


# -- requests that fail


@pytest.mark.parametrize("status", [429, 500, 502, 503, 408])
def test_a_request_that_fails_is_repeated_and_the_answer_used(status: int) -> None:
    insights, server = made(failure(status, retry_after_ms="5"), GOOD)
    assert insights.mode == "openai" and len(server.requests) == 2


def test_retry_after_is_waited_for() -> None:
    begun = time.monotonic()
    insights, _ = made(failure(429, retry_after="1"), GOOD)
    assert insights.mode == "openai" and time.monotonic() - begun >= 1.0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (failure(429, retry_after_ms="5"), "limits requests, and still did after 2 retries"),
        (failure(429, retry_after="86400"), "limits requests"),
        (failure(500, retry_after_ms="5"), "failed with status 500, and still did after 2 retries"),
        (failure(401, f"Incorrect API key provided: {KEY}"), "refuses OPENAI_API_KEY: check the key"),
        (failure(403, "no access"), "does not let this OPENAI_API_KEY use test-model"),
        (failure(404, "no such model"), "knows no model test-model: check OPENAI_MODEL and OPENAI_BASE_URL"),
        (failure(400, f"bad {KEY}\nschema"), "does not take the request (status 400): "),
        (Reply(200, b"<html>hello</html>", {"Content-Type": "text/html"}), "does not answer in OpenAI's protocol"),
        (Reply(200, b"{nonsense", {"Content-Type": "application/json"}), "does not answer in OpenAI's protocol"),
        (Reply(200, b"[]", {"Content-Type": "application/json"}), "does not answer in OpenAI's protocol"),
        (Reply(200, b"null", {"Content-Type": "application/json"}), "does not answer in OpenAI's protocol"),
        (completion("{}", choices=[]), "does not answer in OpenAI's protocol"),
        (completion("{}", choices=None), "does not answer in OpenAI's protocol"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_in_one_line_and_the_rules_stand_in(reply: Reply, said: str) -> None:
    insights, server = made(reply)
    assert_demo(insights, said, server.url.split("/")[2])
    assert len(server.requests) <= 3


def test_a_server_that_does_not_answer_in_time_or_is_not_there_is_told() -> None:
    insights, server = made(Reply(hang=20), openai_timeout_seconds=0.2)
    assert_demo(insights, "did not answer within 0.2 s, 3 times")
    assert len(server.requests) == 3
    assert_demo(Analyst(settings_for(server)).insights("a video", FACTS), "cannot be reached")


def test_a_server_that_sends_its_answer_a_byte_at_a_time_is_given_up() -> None:
    dripping = Reply(body=GOOD.body, headers=GOOD.headers, drip=0.1)
    assert len(dripping.body) * dripping.drip > 60, "an answer that would come in time shows nothing"
    insights, server = made(dripping, openai_timeout_seconds=0.5)
    assert_demo(insights, "did not answer within 0.5 s, 3 times")
    assert len(server.requests) == 3


def test_once_a_server_cannot_be_used_it_is_asked_no_more_in_this_run() -> None:
    with serving_model(failure(401)) as server:
        one = Analyst(settings_for(server))
        notes = {one.insights(f"video {number}", FACTS).note for number in range(3)}
        assert len(server.requests) == 1 and len(notes) == 1


# -- answers that cannot be used

UNUSABLE = {
    "refusal": (completion(None, refusal="I cannot help"), "refused: I cannot help"),
    "cut off": (completion(SAID.model_dump_json()[:900], finish="length"), "cut off"),
    "filtered": (completion("", finish="content_filter"), "content filter"),
    "empty": (completion("  "), "empty"),
    "nothing": (completion(None), "empty"),
    "no message": (completion("x", choices=[{"index": 0, "finish_reason": "stop"}]), "empty"),
    "prose": (completion("Sure! Here is the analysis."), "not the schema"),
    "invalid JSON": (completion(SAID.model_dump_json()[:-2]), "not the schema"),
    "other schema": (completion('{"answer": 42}'), "not the schema: assessment: Field required"),
    "more fields": (completion(json.dumps({**SAID.model_dump(mode="json"), "x": 1})), "not the schema: x"),
    "wrong id": (
        completion(changed(SAID, hypotheses__0__moment_id="dropoff-7").model_dump_json()),
        "hypotheses[0].moment_id",
    ),
    "wrong number": (completion(changed(SAID, summary="73.5 % leave.").model_dump_json()), "73.5 %"),
    "wrong grade": (completion(changed(SAID, assessment__grade="poor").model_dump_json()), "assessment"),
    "link": (completion(changed(SAID, headline="See http://evil.test").model_dump_json()), "a link"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_answer_that_cannot_be_used_is_asked_for_once_more_with_its_fault_named(name: str) -> None:
    reply, fault = UNUSABLE[name]
    insights, server = made(reply, GOOD)
    assert insights.mode == "openai" and insights.analysis == SAID
    assert insights.usage == Usage(calls=2, input_tokens=2000, output_tokens=400)
    first, second = server.requests
    assert len(first["messages"]) == 2 and fault in second["messages"][-1]["content"]


@pytest.mark.parametrize("name", UNUSABLE)
def test_after_a_second_answer_that_cannot_be_used_the_rules_stand_in_with_a_note(name: str) -> None:
    reply, fault = UNUSABLE[name]
    insights, server = made(reply)
    assert_demo(insights, "test-model gave 2 answers that cannot be used: ", fault)
    assert len(server.requests) == 2


def test_the_next_video_is_asked_about_after_one_whose_answers_could_not_be_used() -> None:
    bad = completion("no")
    with serving_model(bad, bad, GOOD) as server:
        one = Analyst(settings_for(server))
        assert [one.insights("a video", FACTS).mode for _ in range(2)] == ["demo", "openai"]


# -- budget, cost, what is kept


@pytest.mark.parametrize(("budget", "modes"), [(0, "ddd"), (1, "odd"), (2, "ood"), (3, "ooo")])
def test_no_more_answers_are_asked_for_than_the_budget_has(budget: int, modes: str) -> None:
    with serving_model(GOOD) as server:
        one = Analyst(settings_for(server, insights_max_calls_per_run=budget))
        found = [one.insights("a video", FACTS) for _ in range(3)]
        assert "".join(each.mode[0] for each in found) == modes and len(server.requests) == budget
    assert all("INSIGHTS_MAX_CALLS_PER_RUN" in each.note for each in found if each.mode == "demo")


def test_corrections_are_of_the_budget_too() -> None:
    insights, server = made(completion("no"), GOOD, insights_max_calls_per_run=1)
    assert len(server.requests) == 1
    assert_demo(insights, "the budget of answers is spent")


def test_of_too_few_views_no_model_is_asked() -> None:
    with serving_model(GOOD) as server:
        one = Analyst(settings_for(server))
        insights = one.insights("a video", facts_of(video_rows(views=12), []))
        assert insights.mode == "demo" and "too few views" in insights.note and not server.requests


def test_tokens_cost_what_the_prices_say_and_nothing_is_said_without_prices() -> None:
    usage = Usage(calls=3, input_tokens=2_000_000, output_tokens=500_000)
    assert cost_of(usage, load_settings()) is None
    assert cost_of(usage, load_settings(openai_input_price=0.4, openai_output_price=1.6)) == pytest.approx(1.6)


def test_insights_are_made_again_when_facts_model_or_prompt_changed_and_not_otherwise() -> None:
    asks, rules = Analyst(settings_for("http://127.0.0.1:9/v1")), Analyst(load_settings())
    by_model = Kept(FACTS.hash, "openai", "test-model", PROMPT_VERSION)
    by_rules = Kept(FACTS.hash, "demo", RULES_VERSION, "")
    assert asks.is_current(by_model, FACTS) and rules.is_current(by_model, FACTS) and rules.is_current(by_rules, FACTS)
    assert not asks.is_current(by_rules, FACTS)
    for other in (by_model._replace(model="x"), by_model._replace(prompt_version="v0")):
        assert not asks.is_current(other, FACTS)
    for kept in (by_model, by_rules):
        for one in (asks, rules):
            assert not one.is_current(kept._replace(facts_hash="other"), FACTS)
    assert not rules.is_current(by_rules._replace(model="rules-0"), FACTS)


def test_what_the_rules_say_while_a_model_is_away_is_kept_once_and_never_in_the_place_of_what_a_model_said() -> None:
    fallback = insights_of(FACTS, model=RULES_VERSION, note="made by rules, since …")
    assert is_news(fallback, None)
    assert not is_news(fallback, Kept(FACTS.hash, "demo", RULES_VERSION, ""))
    assert not is_news(fallback, Kept(FACTS.hash, "openai", "test-model", "v0"))
    assert is_news(fallback, Kept("other", "openai", "test-model", "v1"))
    by_model = insights_of(FACTS, mode="openai", model="test-model", prompt_version="v1")
    assert is_news(by_model, Kept(FACTS.hash, "demo", RULES_VERSION, ""))
