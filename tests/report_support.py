"""What the tests of reports need: videos whose texts attack whoever shows them, watched, and built into marts."""

from __future__ import annotations

import random
import uuid
from typing import Any

from tests.api_support import START_MS, describe, watch

#: Texts that take effect where they are not escaped. Each has a mark of its own, so that it is found again.
ATTACKS = {
    "script": "<script>document.title=1</script>",
    "image": '<img src=x onerror="document.title=2">',
    "attribute": '" onmouseover="document.title=3" x=\'',
    "element": "</title></h1></td></bdi></script></svg><h1 id=stolen>stolen</h1>",
    "comment": "<!-- --><!--> <b>bold</b> ]]> <![CDATA[ x",
    "entity": "&lt;b&gt; &amp;lt; &#60;i&#62; &copy",
    "link": "[click](javascript:alert(1)) and [b][1] ![i](http://evil.test/x.png)",
    "reference": "[1]: http://evil.test 'x'",
    "autolink": "see http://evil.test/a, www.evil.test, evil.test or me@evil.test, <http://evil.test>",
    "mention": "@everyone look at #1, GH-2 and 0123456789abcdef",
    "emphasis": "**bold** _em_ ~~gone~~ ==mark== `code` ``",
    "heading": "# heading",
    "lines": "first\n\n# second\r\n- third\n---\n```\nfourth",
    "list": "1. one",
    "bullet": "- one",
    "table": "a | b \\| c | d |",
    "code and table": "`a|b` me@evil.test ``c``",
    "formula": "$x^2$ and $$y$$ costs $5",
    "emoji": ":smile: :+1:",
    "template": "{{ 7*7 }} {% raw %} ${x} %{y} <%= 1 %>",
    "backslashes": "\\ \\\\ \\* \\[x](y) \\<b>",
    "direction": "user\u202egpj.exe\u2066 \u200bhidden\U000e0041\U000e0042",
    "control": "bell\x07 esc\x1b[31mred nul\x00 tab\t end",
    "quote": "> quoted",
    "footnote": "[^1]: note and [^1]",
    "directive": ":::danger\n:::",
    "html entity in code": "me@x.test <b>&amp;</b>",
    "long": "long " * 200,
}
ORDINARY = "SQL, from scratch: joins & windows (part 2)"


def watched(video_id: str, number: int, leaves_at: float, duration: float, **more: Any) -> list[dict[str, Any]]:
    """A session with what a player says of itself."""
    return [{**event, **more} for event in watch(video_id, number, leaves_at, duration)]


def rewatch(video_id: str, number: int, start: float, end: float, duration: float) -> dict[str, Any]:
    """A stretch that a session of `watch` plays once more, after all it played before."""
    return {
        "schema_version": 1,
        "event_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"again/{video_id}/{number}/{start}")),
        "event_type": "heartbeat",
        "event_time": START_MS + number * 7000 + 3_600_000,
        "session_id": f"{video_id[:50]}-{number}",
        "viewer_id": f"viewer-{number // 2}",
        "video_id": video_id,
        "position_ms": round(end * 1000),
        "played_from_ms": round(start * 1000),
        "played_to_ms": round(end * 1000),
        "duration_ms": round(duration * 1000),
    }


def week_before(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same sessions as others that were watched seven days earlier."""
    return [
        {
            **event,
            "event_id": str(uuid.uuid5(uuid.NAMESPACE_OID, event["event_id"])),
            "event_time": event["event_time"] - 7 * 86_400_000,
            "session_id": f"before-{event['session_id']}",
        }
        for event in events
    ]


def everything() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events and descriptions: a video with a cliff among similar ones, one of each attack, and empty ones."""
    rng, events, videos = random.Random(11), [], []
    for viewer in range(200):
        leaves_at = 60.5 if viewer % 3 == 0 else 200 if viewer % 3 == 1 else rng.randrange(1, 200)
        device = ("tv", "phone", "")[viewer % 3]
        said = {"country": ATTACKS["script"] if viewer % 2 else "DE"} | ({"device_type": device} if device else {})
        events += watched("cliff", viewer, leaves_at, 200, **said)
        if viewer % 4 == 1:
            events.append(rewatch("cliff", viewer, 20, 40, 200))
    chapters = [{"start_ms": 0, "title": "Start"}, {"start_ms": 45_000, "title": ATTACKS["element"]}]
    videos.append(
        describe(
            "cliff",
            title=ORDINARY,
            duration_ms=200_000,
            chapters=chapters,
            category=ATTACKS["table"],
            published_at=START_MS - 86_400_000,
        )
    )
    for number in range(6):
        for viewer in range(30 + number):
            events += watched(f"peer-{number}", viewer, rng.randrange(1, 180 + 5 * number), 180 + 5 * number)
        videos.append(describe(f"peer-{number}", title=f"Peer {number}", duration_ms=(180 + 5 * number) * 1000))
    for viewer in range(40):
        events += week_before(watched("peer-0", viewer, 20 + viewer, 180)) if viewer < 12 else []
        events += week_before(watched("faded", viewer, rng.randrange(5, 190), 190))
    videos.append(describe("faded", duration_ms=190_000))
    beyond = {**rewatch("cliff", 2, 150, 190, 200), "played_to_ms": 400_000}
    events += [beyond, events[0], events[0]]
    attacks = [attack[:1000] for attack in ATTACKS.values()]
    for number in range(0, len(attacks), 4):
        title, category, *titles = attacks[number : number + 4]
        for viewer in range(1 + number % 3):
            said = {"traffic_source": category[:256], "country": title[:256]}
            events += watched(f"attack {number // 4}", viewer, 5 + number, 60, **said)
        chapters = [{"start_ms": 25_000 * place, "title": text} for place, text in enumerate(titles)]
        more = {"category": category[:256], "duration_ms": 60_000, "chapters": chapters}
        videos.append(describe(f"attack {number // 4}", **{"title": title, **more}))
    for name in ("script", "link", "lines", "long"):
        events += watched(f"id {ATTACKS[name]}"[:256], 0, 3, 12.5)
    videos.append(describe("nobody", duration_ms=90_000))
    videos.append(describe("nobody knows how long"))
    return events, videos
