"""What the tests of insights need: rows as the queries give them, and a server that speaks OpenAI's protocol, badly."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from retention_platform.insights.analyse import now
from retention_platform.insights.facts import facts_of
from retention_platform.insights.rules import analysis_of
from retention_platform.insights.schema import Analysis, Facts, Insights, Usage

Row = dict[str, Any]
MADE_AT = datetime(2026, 3, 15, 12, 0, tzinfo=timezone.utc)


def curve_rows(views: int, seconds: int, exits: dict[int, int]) -> list[Row]:
    """A curve in which all begin at 0 and leave when told; the rest stays to the end."""
    rows, there = [], views
    for second in range(seconds):
        left = exits.get(second, 0) if second < seconds - 1 else there
        rows.append(
            {
                "second": second,
                "stopped_watching": left,
                "at_risk": there,
                "watching_views": there,
                "skip_rate": 0.0 if there else None,
            }
        )
        there -= left
    assert there == 0
    return rows


def dropoff_row(start: int, end: int, lost: int, at_risk: int, usual: float, views: int, **more: Any) -> Row:
    """A row of marts.dropoff_points."""
    row = {"start_second": start, "end_second": end, "views_lost": lost, "at_risk": at_risk, "q_value": 1e-9}
    return {**row, "expected_views_lost": usual, "excess_points": 100 * (lost - usual) / views, **more}


def moment_row(kind: str, start: int, end: int, **more: Any) -> Row:
    """A row of marts.key_moments."""
    row = {"moment_id": kind if kind in ("intro", "outro") else f"{kind}-{start}", "kind": kind, "chapter": None}
    row |= {"start_second": start, "end_second": end, "magnitude": 5.0, "magnitude_low": 4.0, "magnitude_high": 6.0}
    return {**row, "views_lost": 10, "at_risk": 500, "level": 0.5, "confidence": 0.99, **more}


def video_rows(views: int = 1000, seconds: int = 600, **more: Any) -> dict[str, Sequence[Row]]:
    """The rows of a calm video with four chapters; ``more`` replaces sections, and `summary` and `video` columns."""
    chapters = [{"start_ms": s * 1000, "title": t} for s, t in ((0, "Hello"), (60, "One"), (300, "Two"), (540, "End"))]
    exits = dict.fromkeys(range(0, min(seconds - 1, views // 2)), 1)
    video = {"video_id": "a video", "title": "A title", "category": "talks", "duration_s": float(seconds)}
    video |= {"duration_source": "catalogue", "chapters": chapters, **more.pop("video", {})}
    summary = {"views": views, "unique_viewers": views // 2, "average_view_percentage": 50.0, "completion_rate": 0.4}
    summary |= {"hook_retention_3s": 0.95, "intro_retention_30s": 0.8, "rewatch_rate": 0.1, "seeks_per_view": 0.5}
    rows: dict[str, Sequence[Row]] = {
        "video": [video],
        "summary": [{**summary, **more.pop("summary", {})}],
        "peers": [{"videos": 40, "below": 30, "alike": 0, "intro_retention_30s": 0.78}],
        "curve": curve_rows(views, seconds, exits),
        "dropoffs": [],
        "moments": [],
        "segments": [],
        "habits": [{"views": views, "faster": views // 10}],
        "after_trouble": [],
        "quality": [],
    }
    return {**rows, **more}


def troubled(**more: Any) -> tuple[dict[str, Sequence[Row]], list[Row]]:
    """A video that loses mobile viewers at 5:20 and has a stall at 2:00, and the evidence for it."""
    exits = dict.fromkeys(range(0, 599), 1) | {120: 100, 320: 120}
    segments = [
        {"dimension": "device_type", "value": value, "views": views, "completion_rate": rate}
        for value, views, rate in (("mobile", 480, 0.2), ("desktop", 420, 0.45), ("tv", 100, 0.45))
    ]
    rows = video_rows(
        curve=curve_rows(1000, 600, exits),
        dropoffs=[dropoff_row(120, 126, 105, 880, 6.0, 1000), dropoff_row(318, 324, 125, 578, 6.0, 1000)],
        moments=[
            moment_row("intro", 0, 30, views_lost=30, at_risk=1000, level=0.97),
            moment_row("spike", 400, 420, magnitude=9.5),
        ],
        segments=segments,
        after_trouble=[
            {"trouble": "buffer_start", "exit_second": 120, "views": 80},
            {"trouble": "buffer_start", "exit_second": 200, "views": 1},
        ],
        **more,
    )
    evidence = [
        {"start_second": start, "dimension": "device_type", "value": value, "lost": lost, "at_risk": at_risk}
        for start, value, lost, at_risk in (
            (120, "mobile", 50, 420),
            (120, "desktop", 43, 370),
            (120, "tv", 12, 90),
            (318, "mobile", 118, 290),
            (318, "desktop", 6, 230),
            (318, "tv", 1, 58),
        )
    ]
    return rows, evidence


def troubled_facts(**more: Any) -> Facts:
    """The facts of `troubled`."""
    return facts_of(*troubled(**more))


def insights_row(text: str) -> Row:
    """A row of marts.ai_insights in which every text that may be anybody's is ``text``."""

    def replaced(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: replaced(part, key) for key, part in value.items()}
        if isinstance(value, list):
            return [replaced(part, name) for part in value]
        kept = ("moment_id", "segment_id", "code", "type", "kind", "cause", "causes", "confidence", "effort", "grade")
        kept += ("basis", "dimension", "facts_version", "spike_before_id", "dip_here_id")
        return text if isinstance(value, str) and name not in kept else value

    facts = troubled_facts()
    return {
        "video_id": "a video",
        "made_at": MADE_AT,
        "mode": "openai",
        "model": text,
        "prompt_version": "v1",
        "note": text,
        "calls": 1,
        "input_tokens": 1,
        "output_tokens": 1,
        "facts": json.dumps(replaced(facts.model_dump(mode="json"))),
        "analysis": json.dumps(replaced(analysis_of(facts).model_dump(mode="json"))),
    }


def insights_of(facts: Facts, **more: Any) -> Insights:
    """Insights by rules."""
    made = {"mode": "demo", "model": "rules", "prompt_version": "", "note": "", "usage": Usage(), **more}
    return Insights(video_id="a video", made_at=now(), facts=facts, analysis=analysis_of(facts), **made)


def changed(analysis: Analysis, **more: Any) -> Analysis:
    """Another analysis: `critical_moments=[…]` and the like, or the change of an entry as `hypotheses__0__cause=…`."""
    data = analysis.model_dump()
    for path, value in more.items():
        *way, last = path.split("__")
        place: Any = data
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[int(last) if isinstance(place, list) else last] = value
    return Analysis.model_validate(data)


# -- a server


@dataclass
class Reply:
    """One answer of the server; ``hang`` seconds pass before it, ``drip`` before each of its bytes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    drip: float = 0.0


def completion(text: str | None, *, finish: str = "stop", refusal: str | None = None, **more: Any) -> Reply:
    """An answer as the protocol has it."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "test-model",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
        **more,
    }
    return Reply(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    """A failure as the protocol has it."""
    body = json.dumps({"error": {"message": message, "type": "t", "code": "c"}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, body, {"Content-Type": "application/json", **named})


class Server:
    """Gives its replies one after the other, the last one for ever; remembers what it was asked."""

    def __init__(self, replies: Sequence[Reply | Callable[[Any], Reply]]) -> None:
        self.replies = list(replies)
        self.requests: list[Any] = []
        self.keys: list[str] = []
        self.url = ""
        self._lock = threading.Lock()

    def reply(self, key: str, request: Any) -> Reply:
        with self._lock:
            self.requests.append(request)
            self.keys.append(key)
            found = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return found(request) if callable(found) else found


@contextlib.contextmanager
def serving_model(*replies: Reply | Callable[[Any], Reply]) -> Iterator[Server]:
    """A server on a free port."""
    server, ended = Server(replies), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = server.reply(self.headers.get("Authorization", ""), json.loads(body))
            ended.wait(reply.hang)
            with contextlib.suppress(OSError):
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                for part in (reply.body[at : at + 1] for at in range(len(reply.body))) if reply.drip else [reply.body]:
                    ended.wait(reply.drip)
                    self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        ended.set()
        http.shutdown()
        thread.join()
        http.server_close()
