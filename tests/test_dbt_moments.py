"""Dropoffs and key moments: the statistics to the digit, the rules against SciPy, and how often they are wrong."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pytest
from scipy import stats

from benchmarks import dropoff_curves as curves
from benchmarks import dropoffs
from retention_platform.settings import DBT_PROJECT_DIR
from tests import oracle, oracle_moments
from tests.dbt_support import Chain

if TYPE_CHECKING:
    from tests.conftest import Warehouse

START_MS = 1_773_532_200_000
MODELS = ("run", "--select", "+key_moments", "+dropoff_points")


@pytest.fixture
def chain(empty_warehouse: Warehouse, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(empty_warehouse.settings, tmp_path)
    yield chain
    chain.client.close()


def exact_tail(hits: int, trials: int, a: float, b: float) -> Decimal:
    """P(X >= hits) of a beta-binomial, by the product that defines its first term, in 40 digits."""
    with localcontext() as context:
        context.prec = 40
        alpha, beta = Decimal(a), Decimal(b)
        term = Decimal(1)
        for i in range(trials):
            term = term * (beta + i) / (alpha + beta + i)
        total = Decimal(0)
        for k in range(trials + 1):
            if k >= hits:
                total += term
                if term < total.scaleb(-25) and k > trials * a / (a + b) and a >= 1 and b >= 1:
                    break
            if k < trials:
                term = term * (trials - k) * (alpha + k) / ((k + 1) * (trials - k - 1 + beta))
        return total


def test_the_tail_is_exact_to_nine_digits_up_to_a_million_trials(empty_warehouse: Warehouse) -> None:
    rng = random.Random(1)
    cases = [
        (1, 1, 0.5, 0.5),
        (30, 30, 0.5, 700.5),
        (200, 20_000, 0.5, 0.5),
        (19_999, 20_000, 3.5, 0.5),
        (3_000, 30_000, 0.5, 29.5),
        (10_300, 1_000_000, 130_000.5, 12_870_000.5),
        (700, 1_000_000, 400.5, 999_000.5),
    ]
    for _ in range(150):
        n = rng.choice([1, 2, 31, 100, 1000, 5000])
        n0 = rng.choice([0, 1, 7, n, 13 * n])
        d0 = min(n0, int(n0 * rng.choice([0, 0.001, 0.01, 0.2, 0.5, 1])))
        mean = n * (d0 + 0.5) / (n0 + 1)
        d = min(n, max(1, round(mean * rng.choice([1, 1.1, 1.5, 3, 10]) + rng.choice([0, 1, 30]))))
        cases.append((d, n, d0 + 0.5, n0 - d0 + 0.5))
    macros = (DBT_PROJECT_DIR / "macros" / "betabinom.sql").read_text(encoding="utf-8")
    tail = jinja2.Environment().from_string(macros + "{{ betabinom_tail('d', 'n', 'a', 'b') }}").render()
    values = ", ".join(f"({number}, {d}, {n}, {a}, {b})" for number, (d, n, a, b) in enumerate(cases))
    structure = "number UInt32, d UInt64, n UInt64, a Float64, b Float64"
    found = empty_warehouse.rows(f"select number, {tail} from values('{structure}', {values})")
    assert len(found) == len(cases)
    for number, p in found:
        exact = exact_tail(*cases[number])
        assert p == pytest.approx(float(exact), rel=1e-9, abs=1e-300), cases[number]
        d, n, a, b = cases[number]
        assert p == pytest.approx(oracle.betabinom_tail(*cases[number]), rel=1e-6), cases[number]
        # SciPy's tail is 1 - cdf: it has fewer digits, of 1 and not of p
        assert p == pytest.approx(float(stats.betabinom.sf(d - 1, n, a, b)), rel=1e-5, abs=1e-8), cases[number]


class Hall:
    """Views as messages, from the stretches of content each played one after the other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.events: list[dict[str, Any]] = []
        self.videos: list[dict[str, Any]] = []

    def video(self, video_id: str, seconds: float, chapters: Sequence[tuple[int, str]] = ()) -> None:
        chapter_rows = [{"start_ms": start, "title": title} for start, title in chapters]
        about = {"video_id": video_id, "title": video_id, "updated_at": START_MS, "chapters": chapter_rows}
        self.videos.append(about | {"duration_ms": round(1000 * seconds)})

    def view(self, video_id: str, viewer: str, *stretches: tuple[float, float]) -> None:
        clock = START_MS + self.random.randrange(3_000_000)
        session = f"{video_id}-{len(self.events)}"
        base = {"schema_version": 1, "session_id": session, "viewer_id": viewer, "video_id": video_id}
        plays: list[dict[str, Any]] = [{"event_type": "play", "event_time": clock, "position_ms": 0}]
        for start, stop in stretches:
            start_ms, stop_ms = round(1000 * start), round(1000 * stop)
            clock += stop_ms - start_ms
            interval = {"played_from_ms": start_ms, "played_to_ms": stop_ms}
            plays.append(interval | {"event_type": "heartbeat", "event_time": clock, "position_ms": stop_ms})
        for event in plays:
            self.events.append(base | event | {"event_id": str(uuid.UUID(int=self.random.getrandbits(128), version=4))})

    def talk(self, video_id: str, views: int, seconds: float, rewatched: float, skipped: float) -> None:
        """Views that leave anywhere; a share of them goes back to the third quarter's begin, or skips the half."""
        rng = self.random
        at, half = seconds * 0.7, seconds * 0.45
        for number in range(views):
            end = seconds if rng.random() < 0.5 else rng.uniform(0.05, 1) * seconds
            length = seconds * 0.06
            stretches = [(rng.choice([0, 0, 0, 0.3 * end]), end)]
            if end > half + length and rng.random() < skipped:
                stretches = [(0, half), (half + length, end)]
            if end > at + length and rng.random() < rewatched:
                stretches = [*stretches[:-1], (stretches[-1][0], at + length), (at, end)]
            if rng.random() < 0.3:
                back = rng.uniform(0, 0.9) * end
                stretches.append((back, min(end, back + rng.uniform(0.02, 0.1) * seconds)))
            self.view(video_id, f"viewer {number if rng.random() < 0.95 else 0}", *stretches)


def everything(seed: int) -> Hall:
    """Videos whose moments are known, and odd ones."""
    hall = Hall(seed)
    rng = hall.random
    hall.video("talk", 200, [(0, "Opening"), (90_000, "Middle"), (140_000, "The trick"), (160_000, "Close")])
    hall.talk("talk", 160, 200, 0.4, 0.35)
    hall.video("busy", 333.3)
    hall.talk("busy", 310, 333.3, 0.25, 0.0)
    hall.video("ten hours", 36_000)
    hall.talk("ten hours", 110, 36_000, 0.5, 0.5)
    for name, seconds in (("one second", 1), ("nearly one", 0.999), ("two", 1.001), ("twelve", 12), ("forty", 40.5)):
        hall.video(name, seconds)
        hall.talk(name, 105, seconds, 0.5, 0.5)
    hall.video("too few", 200)
    hall.talk("too few", 99, 200, 0.5, 0.5)
    hall.video("unseen", 100)
    hall.video("fan", 200)
    for number in range(150):
        hall.view("fan", f"viewer {number}", (0, rng.uniform(60, 200)))
    for _ in range(14):
        hall.view("fan", "the fan", (0, 102), *[(90, 102)] * 6, (102, 200))
    hall.video("all leave at once", 100)
    for number in range(130):
        hall.view("all leave at once", f"viewer {number}", (0, 50))
    hall.video("gap", 120)
    for number in range(140):
        hall.view("gap", f"viewer {number}", (0, 30), (60, 120 if number % 3 else rng.uniform(61, 120)))
    hall.video("calm", 300)
    for number in range(600):
        end = rng.choice([rng.uniform(10, 100), rng.uniform(200, 270), 300])
        hall.view("calm", f"viewer {number}", (0, end))
    return hall


def assert_moments_equal(chain: Chain, hall: Hall) -> dict[tuple[str, str], dict[str, Any]]:
    assert chain.client.command("select count() from raw.rejected_events") == 0, "the test broke the contract"
    chapters = {video["video_id"]: video["chapters"] for video in hall.videos}
    wanted = {
        (video_id, moment_id): row
        for video_id, (duration_ms, views) in oracle_moments.watches(hall.events, hall.videos).items()
        for moment_id, row in oracle_moments.moments(duration_ms, views, chapters[video_id]).items()
    }
    found = chain.mart("key_moments")
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        for column, value in row.items():
            same = pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
            assert found[key][column] == same, f"{key} {column}: {found[key][column]!r}, expected {value!r}"
    expected = oracle.dropoffs(hall.events, hall.videos)
    drops = chain.mart("dropoff_points")
    assert drops.keys() == expected.keys()
    for place, row in expected.items():
        for column, value in row.items():
            same = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert drops[place][column] == same, f"{place} {column}"
    return found


def test_moments_equal_brute_force_with_scipys_peaks_in_whatever_order_events_came(chain: Chain) -> None:
    hall = everything(1)
    order = hall.events + hall.events[::7]
    hall.random.shuffle(order)
    chain.send_videos(hall.videos[::2])
    chain.send_events(order[: len(order) // 2])
    chain.dbt(*MODELS)
    chain.send_events(order[len(order) // 2 :])
    chain.send_videos(hall.videos)
    chain.dbt(*MODELS)
    found = assert_moments_equal(chain, hall)

    kinds = {(video_id, row["kind"]) for (video_id, _), row in found.items()}
    assert {("talk", "spike"), ("talk", "dip"), ("busy", "spike"), ("gap", "dip"), ("calm", "top_moment")} <= kinds
    assert {("ten hours", "spike"), ("ten hours", "dip")} <= kinds
    assert {video_id for video_id, _ in found}.isdisjoint({"too few", "unseen"})
    assert {row["tentative"] for (video_id, _), row in found.items() if video_id in ("talk", "busy")} == {True, False}
    (trick,) = [row for (video_id, _), row in found.items() if (video_id, row["kind"]) == ("talk", "spike")]
    assert (trick["chapter"], trick["confidence"] > 0.99) == ("The trick", True)
    assert found["one second", "intro"]["level"] is None
    # what one viewer rewatches, in however many sessions, is seen and not believed
    ((candidates,),) = chain.ask(
        "select candidates.kind from staging.int_moment_candidates final where video_id = 'fan'"
    )
    assert "spike" in candidates and ("fan", "spike") not in kinds
    assert any(video_id == "all leave at once" for video_id, _ in chain.mart("dropoff_points"))

    moments, drops = chain.mart("key_moments"), chain.mart("dropoff_points")
    chain.dbt(*MODELS, "--full-refresh")
    assert (chain.mart("key_moments"), chain.mart("dropoff_points")) == (moments, drops), "a full refresh differs"


def at_most(share: float, trials: int) -> int:
    """More hits than this in so many trials would come once in 100,000 times if the share were true."""
    return int(stats.binom.isf(1e-5, trials, share))


def watches_of(video: curves.Views) -> list[oracle_moments.Watch]:
    plays = np.zeros((len(video.exits), curves.SECONDS), dtype=np.int64)
    for number, left in enumerate(video.exits):
        plays[number, : left + 1] = 1
    for number, start, stop in video.skips:
        plays[number, start:stop] = 0
    for number, start, stop in video.replays:
        plays[number, start:stop] += 1
    viewers = dropoffs.viewers_of(video)
    return [
        oracle_moments.Watch(viewer, played, 0, int(left), int(left) + 1)
        for viewer, played, left in zip(viewers, plays, video.exits, strict=True)
    ]


def test_smooth_curves_raise_few_alarms_and_what_is_planted_is_found(chain: Chain) -> None:
    chain.dbt(*MODELS)
    rng = np.random.default_rng(1)
    smooth = {
        f"smooth {size} {shape} {number}": curves.exits(rng, hazard(rng), size)
        for size in (100, 300, 1000)
        for shape, hazard in curves.SHAPES.items()
        for number in range(50)
    }
    drops = {
        f"drop {size} {shape} {number}": curves.exits(rng, hazard(rng), size, dropoffs.DROP)
        for size in (100, 300)
        for shape, hazard in curves.SHAPES.items()
        for number in range(25)
    }
    still = {
        f"still {size} {number}": curves.restless(rng, curves.exits(rng, hazard(rng), size), (habit(rng), habit(rng)))
        for size in (100, 300)
        for hazard, habit in ((curves.SHAPES["flat"], dropoffs.habit), (curves.SHAPES["steep"], dropoffs.habit))
        for number in range(40)
    }
    planted = {
        f"{kind} {number}": curves.restless(
            rng,
            curves.exits(rng, curves.SHAPES["flat"](rng), 300),
            (dropoffs.habit(rng), dropoffs.habit(rng)),
            (0.2, 0.0) if kind == "spike" else (0.0, 0.2),
        )
        for kind in ("spike", "dip")
        for number in range(20)
    }
    # more views than are drawn from: those of every second viewer are
    quiet = np.full(curves.BUCKETS, 0.002)
    crowd = curves.restless(rng, curves.exits(rng, quiet, 6000), (quiet, quiet), (0.1, 0.1))
    dropoffs.store_exits(chain.client, smooth | drops)
    dropoffs.store_views(chain.client, still | planted | {"crowd": crowd})
    chain.dbt("run", "--select", *dropoffs.MODELS, *dropoffs.MOMENT_MODELS)

    everywhere = {name: video.planted for name, video in (smooth | drops).items()}
    right = dropoffs.dropoffs_right(chain.client, everywhere | dict.fromkeys({**still, **planted, "crowd": crowd}))
    for size, share in ((100, 0.07), (300, 0.035), (1000, 0.005)):
        alarmed = [name for name in right if name.startswith(f"smooth {size} ")]
        assert len(alarmed) <= at_most(share, 300), alarmed
    for size, share in ((100, 0.8), (300, 0.97)):
        missed = [name for name in drops if name.startswith(f"drop {size} ") and name not in right]
        assert len(missed) <= at_most(1 - share, 150), missed

    found = dropoffs.peaks_found(chain.client)
    assert len(found.keys() & still.keys()) <= at_most(0.03, len(still)), found.keys() & still.keys()
    for name, video in planted.items():
        kind, at = name.split()[0], video.planted
        assert at is not None
        hits = [a for k, a, b in found.get(name, []) if k == kind and a < at + curves.PLANTED_S and at < b]
        assert hits, f"{name} at {at} is not among {found.get(name)}"
    wanted = oracle_moments.moments(1000 * curves.SECONDS, watches_of(crowd))
    rows = {key: row for (video, key), row in chain.mart("key_moments").items() if video == "crowd"}
    assert rows.keys() == wanted.keys() and {"spike", "dip"} <= {row["kind"] for row in rows.values()}
    for key, row in wanted.items():
        for column in ("magnitude", "magnitude_low", "magnitude_high"):
            assert rows[key][column] == pytest.approx(row[column]), (key, column)
