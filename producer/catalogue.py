"""The demo's catalogue: a dozen videos with chapters, and the story each one's viewers tell. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from retention_platform.contract import Chapter, Video


@dataclass(frozen=True)
class DemoVideo:
    """A video and what in it makes viewers leave, skip or watch again. Seconds are content seconds."""

    video: Video
    #: How often it is chosen, relative to the others.
    popularity: float
    #: Where a share of those watching leave within five seconds: (second, share).
    cliff: tuple[int, float] | None = None
    #: A stretch that viewers leave more often than others: (first second, last second).
    tedious: tuple[int, int] | None = None
    #: A stretch that viewers go back to: (first second, last second).
    highlight: tuple[int, int] | None = None
    #: A stretch that viewers skip: (first second, last second).
    dull: tuple[int, int] | None = None
    #: The one device type whose viewers the cliff is for; everybody's when none is named.
    cliff_device: str | None = None
    #: Where the picture stalls for long: (second, share of those who come there). Many of them leave.
    stall: tuple[int, float] | None = None
    #: The part of the video after which viewers take it to be over.
    ending: float = 0.93

    @property
    def duration_ms(self) -> int:
        """Content milliseconds."""
        assert self.video.duration_ms is not None
        return self.video.duration_ms


#: All were published before any history begins.
_FIRST = datetime(2025, 1, 13, 9, 0, tzinfo=timezone.utc)


def _video(number: int, title: str, category: str, seconds: int, chapters: list[tuple[int, str]]) -> Video:
    published = _FIRST + timedelta(days=9 * number)
    return Video(
        video_id=f"demo-{number:02d}",
        title=title,
        category=category,
        duration_ms=seconds * 1000,
        published_at=published,
        chapters=tuple(Chapter(start_ms=start * 1000, title=name) for start, name in chapters),
        updated_at=published,
    )


CATALOGUE: tuple[DemoVideo, ...] = (
    DemoVideo(
        _video(
            1,
            "Sourdough for beginners",
            "cooking",
            780,
            [
                (0, "Welcome"),
                (75, "The starter"),
                (240, "Kneading"),
                (430, "Shaping"),
                (600, "Baking"),
                (735, "Thanks"),
            ],
        ),
        popularity=3.0,
        highlight=(430, 470),
        cliff=(735, 0.35),
    ),
    DemoVideo(
        _video(
            2,
            "Statistics 101: what a p-value is",
            "lectures",
            1420,
            [
                (0, "Last week"),
                (180, "A coin"),
                (420, "The null"),
                (760, "Two tails"),
                (1130, "Pitfalls"),
                (1360, "Reading"),
            ],
        ),
        popularity=2.2,
        cliff=(760, 0.16),
    ),
    DemoVideo(
        _video(
            3,
            "Quarterly product update",
            "company",
            960,
            [(0, "Agenda"), (140, "Numbers"), (420, "Demo"), (840, "Questions")],
        ),
        popularity=1.4,
        dull=(140, 300),
    ),
    DemoVideo(
        _video(
            4,
            "Trail running in the Alps",
            "sports",
            312,
            [(0, "Dawn"), (70, "Ascent"), (190, "Ridge"), (280, "Credits")],
        ),
        popularity=2.6,
        highlight=(205, 230),
    ),
    DemoVideo(
        _video(5, "Sixty-second news", "news", 62, [(0, "Headlines"), (45, "Weather")]),
        popularity=3.4,
    ),
    DemoVideo(
        _video(
            6,
            "Learn Python: lists and loops",
            "lectures",
            1105,
            [(0, "Set-up"), (160, "Lists"), (430, "Loops"), (720, "Exercise"), (980, "Solution")],
        ),
        popularity=2.8,
        highlight=(980, 1040),
        cliff=(725, 0.12),
    ),
    DemoVideo(
        _video(
            7,
            "How a heat pump works",
            "explainers",
            424,
            [(0, "Teaser"), (40, "The cycle"), (210, "In your house"), (370, "Costs")],
        ),
        popularity=1.9,
    ),
    DemoVideo(
        _video(
            8,
            "Onboarding: your first day",
            "company",
            545,
            [(0, "Hello"), (90, "People"), (260, "Tools"), (470, "Next steps")],
        ),
        popularity=1.2,
        dull=(90, 170),
    ),
    DemoVideo(
        _video(
            9,
            "Guitar: the F chord at last",
            "music",
            368,
            [(0, "Why it is hard"), (85, "Finger by finger"), (240, "A song")],
        ),
        popularity=2.0,
        highlight=(100, 135),
    ),
    DemoVideo(
        _video(
            10,
            "Documentary: the last ferry",
            "film",
            1795,
            [(0, "Harbour"), (300, "The crew"), (760, "Storm"), (1250, "Crossing"), (1680, "Credits")],
        ),
        popularity=1.1,
        cliff=(300, 0.14),
    ),
    DemoVideo(
        _video(11, "Trailer: season two", "film", 48, [(0, "Trailer")]),
        popularity=2.4,
    ),
    DemoVideo(
        _video(
            12,
            "Ask me anything with the founders",
            "company",
            1610,
            [(0, "Introductions"), (200, "Roadmap"), (640, "Hiring"), (1000, "Money"), (1420, "Rapid fire")],
        ),
        popularity=1.0,
        tedious=(0, 200),
        cliff=(1005, 0.18),
    ),
)
