"""Videos with one planted reason to leave, or none, and the invented viewers who watch them. Pure and seeded.

Everything but the planted cause varies with the seed: length, chapters, how many watch, where and how strong it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from producer.catalogue import DemoVideo
from producer.session import simulate_session
from producer.viewers import pick_viewer
from retention_platform.contract import Chapter, Video

#: Planted causes, by the name that insights have for each.
CAUSES = ("long_intro", "chapter_content", "device", "buffering", "end_screen")
NOTHING = "nothing"
START = datetime(2026, 1, 5, 8, 0, tzinfo=timezone.utc)
#: Views of a video; fewer than 300 make every moment tentative.
VIEWS = (250, 900)
#: Without one planted, viewers take the last hundredths of a video for its end.
ENDING = 0.98
_TITLES = ("Part one", "Details", "An example", "Background", "Step by step", "Questions", "More", "Comparison")


@dataclass(frozen=True)
class Planted:
    """A video, what was planted in it, and from when to when (content seconds)."""

    demo: DemoVideo
    cause: str
    start: int
    end: int
    views: int

    @property
    def video_id(self) -> str:
        """The video's id."""
        return self.demo.video.video_id


def planted(seed: int, cause: str) -> Planted:
    """The video of a seed with a cause, or with `NOTHING`."""
    chance = random.Random(f"{seed}/{cause}/planted")
    seconds = chance.randint(300, 900)
    # Chapters of unequal length; the first and the last are short, as they are where people make them.
    first, last = chance.randint(40, max(41, seconds // 6)), int(seconds * chance.uniform(0.85, 0.91))
    inner = sorted(chance.sample(range(first + 45, last - 45, 30), k=min(chance.randint(2, 4), (last - first) // 120)))
    starts = [0, first, *inner, last]
    settings: dict[str, object] = {"ending": ENDING}
    start, end = 0, 0
    if cause == "long_intro":
        start, end = 0, first
        settings["tedious"] = (0, first)
    elif cause == "chapter_content":
        start = chance.choice(inner or [first])
        end = start + 5
        settings["cliff"] = (start, chance.uniform(0.15, 0.3))
    elif cause in ("device", "buffering"):
        free = [second for second in range(seconds // 5, int(seconds * 0.75)) if _is_far(second, starts)]
        start = chance.choice(free)
        end = start + 5
        if cause == "device":
            settings |= {"cliff": (start, chance.uniform(0.3, 0.55)), "cliff_device": "mobile"}
        else:
            settings["stall"] = (start, chance.uniform(0.25, 0.5))
    elif cause == "end_screen":
        start, end = last, last + 5
        settings["cliff"] = (last, chance.uniform(0.2, 0.4))
    chapters = tuple(Chapter(start_ms=second * 1000, title=chance.choice(_TITLES)) for second in starts)
    video = Video(
        video_id=f"{cause}-{seed}",
        title=f"Video {seed}",
        category="planted",
        duration_ms=seconds * 1000,
        published_at=START,
        chapters=chapters,
        updated_at=START,
    )
    demo = DemoVideo(video, popularity=1.0, **settings)  # type: ignore[arg-type]
    return Planted(demo, cause, start, end, chance.randint(*VIEWS))


def _is_far(second: int, starts: list[int]) -> bool:
    return all(abs(second - start) > 30 for start in starts)


def messages(video: Planted, seed: int) -> Iterator[bytes]:
    """What the players of all its viewers send, session by session."""
    chance = random.Random(f"{seed}/{video.video_id}/viewers")
    people = max(1, int(0.8 * video.views))
    for number in range(video.views):
        viewer = pick_viewer(chance, seed, people)
        start = START + timedelta(minutes=number * 20160 // video.views)
        session = simulate_session(chance, video.demo, viewer, int(start.timestamp() * 1000))
        for _, message in session.messages:
            yield message
