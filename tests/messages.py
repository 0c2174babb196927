"""The smallest messages of the contract, to be spread over in tests."""

from __future__ import annotations

from typing import Any

EVENT: dict[str, Any] = {
    "schema_version": 1,
    "event_id": "01930000-0000-7000-8000-000000000001",
    "event_type": "heartbeat",
    "event_time": "2026-01-15T12:00:00.000Z",
    "session_id": "session-1",
    "viewer_id": "viewer-1",
    "video_id": "video-1",
    "position_ms": 10_000,
}
VIDEO: dict[str, Any] = {
    "video_id": "video-1",
    "title": "A title",
    "duration_ms": 60_000,
    "category": "talks",
    "published_at": "2026-01-01T00:00:00.000Z",
    "chapters": [{"start_ms": 0, "title": "Beginning"}, {"start_ms": 30_000, "title": "End"}],
    "updated_at": "2026-01-02T00:00:00.000Z",
}
