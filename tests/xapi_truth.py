"""The real xAPI log read a second time, plainly and apart from the importer: what each session watched."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EXTENSION = "https://w3id.org/xapi/video/extensions/"
STATEMENTS = Path(__file__).parents[2] / "shared" / "data" / "marsha-xapi" / "statements.json.gz"

needs_statements = pytest.mark.skipif(not STATEMENTS.exists(), reason=f"the real viewers' log is not at {STATEMENTS}")


@dataclass
class Watched:
    """One session: the segments of its fullest list in player order, [from, to) in ms, and the player's own figure."""

    video_id: str
    viewer_id: str
    segments: list[tuple[int, int]]
    progress: float | None
    length_s: float


def read_statements() -> list[dict[str, Any]]:
    with gzip.open(STATEMENTS, "rt") as file:
        return [json.loads(line) for line in file]


def covered(segments: list[tuple[int, int]]) -> bytearray:
    """One byte a millisecond of content, 1 where it was watched: plain and beyond doubt."""
    mask = bytearray(max((end for _, end in segments), default=0))
    for start, end in segments:
        mask[start:end] = b"\1" * (end - start)
    return mask


def watched_sessions() -> dict[str, Watched]:
    """Sessions that watched anything, by id."""
    best: dict[str, tuple[int, Watched]] = {}
    for statement in read_statements():
        context = statement["context"]["extensions"]
        result = statement.get("result", {}).get("extensions", {})
        text = result.get(EXTENSION + "played-segments")
        if not text:
            continue
        segments = []
        for part in text.split("[,]"):
            ends = part.split("[.]")
            if len(ends) == 2 and float(ends[1]) > float(ends[0]):
                segments.append((round(float(ends[0]) * 1000), round(float(ends[1]) * 1000)))
        segments = [(start, end) for start, end in segments if end > start]
        if not segments:
            continue
        pinned = statement["verb"]["id"].endswith("/completed")
        length = result.get(EXTENSION + "length", context.get(EXTENSION + "length"))
        session = context[EXTENSION + "session-id"]
        size = covered(segments).count(1)
        watched = Watched(
            statement["object"]["id"].removeprefix("uuid://"),
            statement["actor"]["account"]["name"],
            segments,
            None if pinned else result[EXTENSION + "progress"],
            length,
        )
        if session not in best or (size, watched.progress is not None) > (
            best[session][0],
            best[session][1].progress is not None,
        ):
            best[session] = (size, watched)
    return {session: watched for session, (_, watched) in best.items()}


def lengths_s() -> dict[str, float]:
    """The longest length any statement gives for each video, in seconds."""
    longest: dict[str, float] = defaultdict(float)
    for statement in read_statements():
        context = statement["context"]["extensions"]
        result = statement.get("result", {}).get("extensions", {})
        length = result.get(EXTENSION + "length", context.get(EXTENSION + "length"))
        video = statement["object"]["id"].removeprefix("uuid://")
        longest[video] = max(longest[video], length or 0)
    return longest
