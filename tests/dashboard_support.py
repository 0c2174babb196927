"""An API that answers what a test wants: for the dashboard's client and pages, without a warehouse."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

import httpx

from retention_platform.dashboard.client import Api

NOW = datetime(2026, 3, 20, 12, 0, tzinfo=timezone.utc)
NASTY = "<img src=x onerror=alert(1)> **bold** $x$ :red[x] [a](http://e.com)"
ENGAGEMENT: dict[str, Any] = {
    "unique_viewers": 900,
    "engaged_views": 950,
    "watch_time_s": 30_000.0,
    "content_played_s": 31_000.0,
    "content_watched_s": 29_000.0,
    "average_view_duration_s": 30.0,
    "average_view_percentage": 50.0,
    "completion_rate": 0.25,
    "hook_retention_3s": 0.95,
    "intro_retention_30s": 0.5,
    "rewatch_rate": 0.1,
    "seeks_per_view": 1.0,
    "peak_concurrent_viewers": 9,
}


def point(second: int, watching: int, views: int) -> dict[str, Any]:
    """One second of a curve, with a band of 2.4 points on either side."""
    rate = watching / views
    return {
        "second": second,
        "views": views,
        "watching_views": watching,
        "segment_plays": watching,
        "retention_rate": rate,
        "audience_watch_ratio": rate,
        "reach_ratio": rate,
        "rewatch_ratio": 0.0 if watching else None,
        "skip_rate": 0.0,
        "started_watching": 0,
        "stopped_watching": 1,
        "at_risk": watching,
        "exit_hazard": 0.1,
        "ci_low": max(0.0, rate - 0.024),
        "ci_high": min(1.0, rate + 0.024),
        "relative_retention_performance": None,
    }


def dropoff(**more: Any) -> dict[str, Any]:
    """A dropoff row."""
    return {
        "start_second": 40,
        "end_second": 42,
        "severity": "high",
        "views_lost": 154,
        "expected_views_lost": 12.2,
        "excess_points": 14.1,
        "at_risk": 616,
        "hazard": 0.25,
        "baseline_hazard": 0.02,
        "p_value": 1e-9,
        "q_value": 1e-8,
        "chapter": NASTY,
        "tentative": False,
        **more,
    }


class FakeApi:
    """Videos ``a`` (1,000 views), ``b`` (12 views) and ``c`` (none). Change the fields to make it answer otherwise."""

    def __init__(self) -> None:
        self.views = {"a": 1000, "b": 12, "c": 0}
        self.titles: dict[str, str | None] = {"a": NASTY, "b": "Second", "c": None}
        self.away = False
        self.problem: tuple[int, str] | None = None
        self.lag_s = 5.0
        self.insights: dict[str, Any] | None = None
        self.requests: list[httpx.Request] = []

    def api(self) -> Api:
        """A client of it."""
        return Api("http://api", transport=httpx.MockTransport(self.answer))

    def asked(self, part: str) -> list[httpx.Request]:
        """The requests whose address holds ``part``."""
        return [request for request in self.requests if part in str(request.url)]

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the API would."""
        self.requests.append(request)
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        path = unquote(request.url.path)
        if self.problem is not None and path != "/health":
            status, name = self.problem
            told = {"type": f"urn:retention:problem:{name}", "title": "A title", "status": status, "detail": "A detail"}
            return httpx.Response(status, json=told)
        tag = 'W/"1"'
        if request.headers.get("if-none-match") == tag:
            return httpx.Response(304, headers={"ETag": tag})
        body = self._body(path, request.url.params)
        if body is None:
            told = {"type": "urn:retention:problem:not-found", "title": "Not Found", "status": 404, "detail": "nothing"}
            return httpx.Response(404, json=told)
        if isinstance(body, bytes):
            return httpx.Response(200, content=body)
        kept = {} if path in ("/viewers_now", "/health", "/runs", "/data_quality") else {"ETag": tag}
        return httpx.Response(200, content=json.dumps(body, default=str), headers=kept)

    def _body(self, path: str, asked: httpx.QueryParams) -> Any:
        if path.startswith("/video/"):
            _, _, video_id, what = path.split("/")
            return self._of_video(video_id, what, asked) if video_id in self.views else None
        found = [self._item(one) for one in self.views if asked.get("search", "").lower() in one]
        totals = {"videos": len(found), "views": sum(v["views"] for v in found), "watch_time_s": 100.0}
        limit, offset = int(asked.get("limit", 100)), int(asked.get("offset", 0))
        page = {"total": len(found), "totals": totals, "limit": limit, "offset": offset}
        return {
            "/overview": {**page, "videos": found[offset : offset + limit]},
            "/videos": {**page, "videos": found[offset : offset + limit]},
            "/viewers_now": {"at": NOW, "viewers": 4, "videos": [self._watched("a", 4)]},
            "/concurrent_viewers": self._concurrency(asked.get("video_id")),
            "/compare": self._comparison(asked.get_list("video_id")),
            "/data_quality": {
                "video_id": None,
                "figures": [
                    {"figure": "rejected_messages", "field": "position_ms", "reason": NASTY, "found": 3, "out_of": None}
                ],
            },
            "/runs": {"dagster_url": "http://127.0.0.1:3000", "reason": None, "runs": [self._run()]},
            "/health": self._health(),
        }.get(path)

    def _item(self, one: str) -> dict[str, Any]:
        views = self.views[one]
        return {
            "video_id": one,
            "title": self.titles[one],
            "category": "talks",
            "published_at": NOW,
            "duration_s": 60.0,
            "duration_source": "catalogue",
            "views": views,
            "unique_viewers": views,
            "watch_time_s": 100.0,
            "average_view_percentage": 50.0 if views else None,
            "completion_rate": 0.25 if views else None,
            "is_sufficient": views >= 30,
            "last_event_at": NOW if views else None,
            "sparkline": [1.0, 0.5, 0.25] if views else [],
            "views_week": 56 if views else 0,
            "views_week_before": 50 if views else 0,
            "average_view_percentage_week": 51.0 if views else None,
            "average_view_percentage_week_before": 49.5 if views else None,
        }

    def _head(self, one: str, views: int) -> dict[str, Any]:
        steps = ((1, "no_views"), (30, "insufficient"), (100, "curve_only"), (300, "tentative"))
        told = next((name for below, name in steps if views < below), "full")
        reason = {"code": "no_views", "text": "nothing was played"} if views == 0 else None
        return {
            "video_id": one,
            "title": self.titles[one],
            "duration_s": 60.0,
            "views": views,
            "is_sufficient": views >= 30,
            "sufficiency": told,
            "fresh_as_of": NOW,
            "reason": reason,
        }

    def _of_video(self, one: str, what: str, asked: httpx.QueryParams) -> Any:
        chosen = {name: asked.get_list(name) for name in ("device_type", "country", "traffic_source", "viewer_type")}
        days = {name: asked.get(name) for name in ("first_day", "last_day")}
        narrowed = any(chosen.values()) or any(days.values())
        views = self.views[one] // 2 if narrowed else self.views[one]
        head = self._head(one, views)
        points = [point(second, views * (60 - second) // 60, views) for second in range(60)] if views else []
        figures = ENGAGEMENT if views else {**ENGAGEMENT, "average_view_percentage": None, "completion_rate": None}
        of_all = self._head(one, self.views[one])
        day = {**ENGAGEMENT, "views": self.views[one], "is_sufficient": True}
        none = {"code": "none_significant", "text": "tested, and nothing found"}
        if asked.get("source") == "live":
            return {**head, "source": "live", "points": [{k: p[k] for k in LIVE} for p in points]}
        if asked.get("format") == "csv":
            return b"second,watching_views\n0,1000\n"
        return {
            "retention_curve": {**head, "source": "batch", "chosen": {**chosen, **days}, "points": points},
            "engagement_summary": {
                **head,
                **figures,
                "chosen": {**chosen, **days},
                "category": "talks",
                "published_at": NOW,
                "duration_source": "catalogue",
                "chapters": [{"start_ms": 0, "title": "One"}, {"start_ms": 30_000, "title": NASTY}],
                "first_event_at": NOW,
                "last_event_at": NOW,
                "sessions": views,
                "implausible_sessions": 0,
                "invalid_intervals": 0,
                "computed_at": NOW,
            },
            "significant_dropoffs": {**of_all, "dropoffs": [dropoff()] if views >= 100 else [], "reason": none},
            "key_moments": {**of_all, "moments": [], "reason": none},
            "engagement_daily": {
                **of_all,
                "days": [{**day, "day": f"2026-03-{number:02}"} for number in range(1, 21)] if views else [],
            },
            "engagement_by_segment": {
                **of_all,
                "segments": [
                    {**day, "dimension": "device_type", "value": value, "share_of_views": 0.5}
                    for value in (("tv", "") if views else ())
                ],
            },
            "typical": {
                **dict.fromkeys(
                    ("views", "seeks_per_view", "rewatch_rate", "hook_retention_3s", "intro_retention_30s")
                ),
                "video_id": one,
                "peers": "similar",
                "videos": 11,
                "average_view_duration_s": 40.0,
                "average_view_percentage": 44.0,
                "completion_rate": 0.3,
            },
            "report": b"# report",
            "insights": self.insights,
        }.get(what)

    def _watched(self, one: str, viewers: int) -> dict[str, Any]:
        return {"video_id": one, "title": self.titles.get(one), "viewers": viewers, "last_event_at": NOW}

    def _concurrency(self, video_id: str | None) -> dict[str, Any]:
        return {
            "video_id": video_id,
            "source": "live",
            "day": None,
            "step_s": 10,
            "peak": 7,
            "average": 3.0,
            "reason": None,
            "instants": [{"at": NOW, "concurrent_viewers": 7}],
        }

    def _comparison(self, ids: list[str]) -> dict[str, Any]:
        videos = [
            {
                "video_id": one,
                "title": self.titles[one],
                "duration_s": 60.0,
                "views": self.views[one],
                "is_sufficient": True,
            }
            for one in ids
        ]
        points = [
            {
                "video_id": one,
                "percent": percent,
                "second": 0,
                "watching_views": 1,
                "retention_rate": 0.5,
                "audience_watch_ratio": 0.5,
                "ci_low": 0.4,
                "ci_high": 0.6,
            }
            for one in ids
            if self.views[one]
            for percent in (0.0, 100.0)
        ]
        return {"videos": videos, "points": points}

    def _run(self) -> dict[str, Any]:
        return {
            "run_id": "r",
            "job": "marts",
            "status": "SUCCESS",
            "created_at": NOW,
            "started_at": NOW,
            "ended_at": NOW,
        }

    def _health(self) -> dict[str, Any]:
        part = {"status": "up", "required": False, "detail": "fine"}
        return {
            "status": "ok",
            "version": "0",
            "checked_at": NOW,
            "dependencies": dict.fromkeys(("clickhouse", "marts", "kafka", "dagster"), part),
            "freshness": {
                "newest_ingested_at": NOW,
                "marts_computed_at": NOW,
                "marts_newest_ingested_at": NOW,
                "marts_lag_s": self.lag_s,
                "ingest_lag_messages": 0,
            },
        }


LIVE = ("second", "views", "watching_views", "retention_rate")
