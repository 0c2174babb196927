"""How far reported dropoffs and key moments are to be trusted: false alarms on smooth curves, and planted ones found.

Invented videos are put where the intermediate models keep theirs, and dbt builds the marts from them: what is measured
is the SQL that runs in production. Curves come from `dropoff_curves`; decides nothing about what a dropoff is.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pyarrow as pa
from dbt.cli.main import dbtRunner

from benchmarks.dropoff_curves import (
    BUCKET_S,
    BUCKETS,
    PLANTED_S,
    SECONDS,
    SHAPES,
    Exits,
    Floats,
    Ints,
    Views,
    exits,
    restless,
)
from benchmarks.report import Report
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.errors import RetentionError
from retention_platform.orchestration.dbt_run import environment
from retention_platform.settings import DBT_PROJECT_DIR, Settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: What dbt builds from the invented videos, and what must be there before.
MODELS = ("int_moment_buckets", "int_dropoffs")
MOMENT_MODELS = (
    "int_moment_buckets",
    "int_moment_candidates",
    "int_moment_resamples",
    "int_top_moments",
    "int_key_moments",
)
PARENTS = ("+key_moments", "+dropoff_points")
SIZES = (100, 300, 1_000, 5_000)
MOMENT_SIZES = (100, 300, 1_000)
HAZARDS = (0.002, 0.004, 0.006, 0.01, 0.015, 0.02, 0.03)
DROP = 0.1
#: Of those who come so far, who rewatch or skip the planted stretch.
SHARE = 0.2


def run(report: Report, curves: int = 2000, moment_curves: int = 100) -> None:
    """Measure and tell; so many curves of each kind."""
    with tempfile.TemporaryDirectory() as name, embedded_clickhouse.running(Path(name) / "clickhouse") as server:
        settings = load_settings(retention_home=Path(name), clickhouse_port=server.port)
        client = connect(settings)
        migrate(client)
        dbt = _Dbt(settings, Path(name))
        dbt.run(*PARENTS)
        rng = np.random.default_rng(20_260_101)
        _dropoffs(report, client, dbt, rng, curves)
        _hazards(report, client, dbt, rng, curves)
        _moments(report, client, dbt, rng, moment_curves)
        client.close()


def _dropoffs(report: Report, client: Client, dbt: _Dbt, rng: np.random.Generator, curves: int) -> None:
    rows = []
    for shape, hazard in SHAPES.items():
        videos = {
            (kind, size, number): exits(rng, hazard(rng), size, drop)
            for kind, drop in (("smooth", 0.0), ("planted", DROP))
            for size in SIZES
            for number in range(curves)
        }
        empty(client)
        store_exits(client, {str(key): video for key, video in videos.items()})
        dbt.run(*MODELS)
        right = dropoffs_right(client, {str(key): video.planted for key, video in videos.items()})
        counted = Counter(key[:2] for key in videos if str(key) in right)
        cells = (f"{counted[kind, size] / curves:.1%}" for kind in ("smooth", "planted") for size in SIZES)
        rows.append((shape, *cells))
    report.text(
        f"Share of {curves} smooth curves on which any dropoff is reported, and of {curves} others of which the planted"
        f" one is found: {DROP:.0%} of those watching leave at once, anywhere in the middle."
    )
    heads = [f"{kind}, {size:,}" for kind in ("smooth", "planted") for size in SIZES]
    report.table(("hazard, views", *heads), rows)


def _hazards(report: Report, client: Client, dbt: _Dbt, rng: np.random.Generator, curves: int) -> None:
    videos = {
        (hazard, size, number): exits(rng, np.full(BUCKETS, hazard), size)
        for hazard in HAZARDS
        for size in SIZES
        for number in range(curves)
    }
    empty(client)
    store_exits(client, {str(key): video for key, video in videos.items()})
    dbt.run(*MODELS)
    alarmed = dropoffs_right(client, dict.fromkeys(map(str, videos)))
    counted = Counter(key[:2] for key in videos if str(key) in alarmed)
    report.text("Smooth curves on which any dropoff is reported, by how many of those there leave in every bucket:")
    report.table(
        ("hazard a bucket, see the end", *(f"{size:,} views" for size in SIZES)),
        [
            (
                f"{hazard:.1%}, {(1 - hazard) ** BUCKETS:.0%}",
                *(f"{counted[hazard, size] / curves:.1%}" for size in SIZES),
            )
            for hazard in HAZARDS
        ],
    )


def _moments(report: Report, client: Client, dbt: _Dbt, rng: np.random.Generator, curves: int) -> None:
    planted = {"smooth": (0.0, 0.0), "rewatch": (SHARE, 0.0), "skip": (0.0, SHARE)}
    rows = []
    for shape, hazard in SHAPES.items():
        right: Counter[tuple[str, int]] = Counter()
        for size in MOMENT_SIZES:
            videos = {
                (kind, size, number): restless(rng, exits(rng, hazard(rng), size), (habit(rng), habit(rng)), shares)
                for kind, shares in planted.items()
                for number in range(curves)
            }
            empty(client)
            store_views(client, {str(key): video for key, video in videos.items()})
            dbt.run(*MOMENT_MODELS)
            found = peaks_found(client)
            for key, video in videos.items():
                kind = {"rewatch": "spike", "skip": "dip"}.get(key[0])
                stretches = found.get(str(key), [])
                if kind is None:
                    right[key[:2]] += bool(stretches)
                elif video.planted is not None:
                    start, stop = video.planted, video.planted + PLANTED_S
                    right[key[:2]] += any(k == kind and a < stop and start < b for k, a, b in stretches)
        rows.append((shape, *(f"{right[kind, size] / curves:.0%}" for kind in planted for size in MOMENT_SIZES)))
    report.text(
        f"Share of {curves} videos whose viewers rewatch and skip smoothly on which any spike or dip is confirmed, and"
        f" of {curves} others of which the planted one is: {SHARE:.0%} of those who come so far rewatch, or skip, the"
        f" same {PLANTED_S} of {SECONDS} s."
    )
    report.table(("hazard, views", *(f"{kind}, {size:,}" for kind in planted for size in MOMENT_SIZES)), rows)


def habit(rng: np.random.Generator) -> Floats:
    """How often viewers rewatch or skip by place, smooth: about one stretch a view that sees all."""
    return np.asarray(0.01 * (1 + 0.4 * np.sin(2 * np.pi * (np.arange(BUCKETS) / 50 + rng.random()))))


class _Dbt:
    """dbt over one warehouse."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._environment = environment(settings)
        where = {"project-dir": DBT_PROJECT_DIR, "profiles-dir": DBT_PROJECT_DIR, "target-path": folder / "target"}
        where["log-path"] = folder / "logs"
        self._where = [part for name, path in where.items() for part in (f"--{name}", str(path))]
        self._manifest = self._invoke(dbtRunner(), "parse").result

    def run(self, *models: str) -> None:
        """Build these models whole. Raises RetentionError."""
        self._invoke(dbtRunner(manifest=self._manifest), "run", "--full-refresh", "--select", *models)

    def _invoke(self, runner: dbtRunner, *arguments: str) -> Any:
        with mock.patch.dict(os.environ, self._environment):
            outcome = runner.invoke(["--quiet", "--no-use-colors", *arguments, *self._where])
        if not outcome.success:
            raise RetentionError(f"dbt {' '.join(arguments)} failed: {outcome.exception or 'see its messages'}")
        return outcome


def empty(client: Client) -> None:
    """Forget the videos that were stored; what is made of them goes when it is built whole again."""
    for table in ("int_retention_totals", "int_views"):
        client.command(f"truncate table staging.{table}")


def store_exits(client: Client, videos: Mapping[str, Exits]) -> None:
    """Put videos whose views watch from the start to their exit where `int_retention_totals` is."""
    still = np.empty((0, 3), dtype=np.int64)
    _store_totals(
        client, {name: Views(video.seconds, video.seconds, still, still, None) for name, video in videos.items()}
    )


def store_views(client: Client, videos: Mapping[str, Views]) -> None:
    """Put videos and each of their views where `int_retention_totals` and `int_views` are."""
    _store_totals(client, videos)
    client.insert_arrow("staging.int_views", pa.concat_tables(_views(name, video) for name, video in videos.items()))


def _store_totals(client: Client, videos: Mapping[str, Views]) -> None:
    columns = ["watching", "plays", "started", "stopped", "entered", "furthest"]
    rows = []
    for name, video in videos.items():
        count = len(video.exits)
        watched, edges = _ranges(video)
        stopped = np.bincount(video.exits, minlength=SECONDS)
        entered = np.zeros(SECONDS, dtype=np.int64)
        entered[0] = count
        watching = _sum(watched[:, 1]) - _sum(watched[:, 2])
        plays = _sum(edges[edges[:, 2] > 0, 1]) - _sum(edges[edges[:, 2] < 0, 1])
        arrays = (watching, plays, entered, stopped, entered, stopped)
        rows.append([name, 1000 * SECONDS, SECONDS, count, 1, *(array.tolist() for array in arrays)])
    head = ["video_id", "duration_ms", "seconds", "views", "generation"]
    client.insert("int_retention_totals", rows, database="staging", column_names=head + columns)


def _sum(seconds: Ints) -> Ints:
    # what ends with the video changes no second of it
    return np.bincount(seconds, minlength=SECONDS + 1)[:SECONDS]


def _ranges(video: Views) -> tuple[Ints, Ints]:
    """Rows of (view, start, stop) that are watched, and of (view, second, weight) by which the plays change."""
    numbers = np.arange(len(video.exits))
    skips = video.skips
    # a skip ends one range and begins another; in the order of the video they belong together
    starts = np.sort(np.concatenate([numbers * 2 * SECONDS, skips[:, 0] * 2 * SECONDS + skips[:, 2]]))
    stops = np.sort(np.concatenate([numbers * 2 * SECONDS + video.exits + 1, skips[:, 0] * 2 * SECONDS + skips[:, 1]]))
    watched = np.stack([starts // (2 * SECONDS), starts % (2 * SECONDS), stops % (2 * SECONDS)], axis=1)
    played = np.concatenate([watched, video.replays])
    ones = np.ones(len(played), dtype=np.int64)
    edges = [np.stack([played[:, 0], played[:, at], weight], axis=1) for at, weight in ((1, ones), (2, -ones))]
    return watched, np.concatenate(edges)


def _views(name: str, video: Views) -> pa.Table:
    count = len(video.exits)
    watched, edges = _ranges(video)
    return pa.table(
        {
            "video_id": [name] * count,
            "session_id": [str(number) for number in range(count)],
            "viewer_id": viewers_of(video),
            "watched_seconds": _nested(watched, count, ("start", pa.int64()), ("stop", pa.int64())),
            "played_edges": _nested(edges, count, ("at", pa.int64()), ("weight", pa.int32())),
            "furthest_ms": pa.array(1000 * (video.exits + 1)),
            "is_view": pa.array(np.ones(count, dtype=np.uint8)),
            "generation": pa.array(np.ones(count, dtype=np.uint64)),
        }
    )


def viewers_of(video: Views) -> list[str]:
    """The viewer's id by view."""
    return [f"viewer {number}" for number in video.viewers]


def _nested(rows: Ints, count: int, *fields: tuple[str, pa.DataType]) -> pa.ListArray:
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows[:, 0], minlength=count))])
    columns = [pa.array(rows[:, number + 1], type=kind) for number, (_, kind) in enumerate(fields)]
    structs = pa.StructArray.from_arrays(columns, names=[name for name, _ in fields])
    return pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), structs)


def dropoffs_right(client: Client, planted: Mapping[str, int | None]) -> set[str]:
    """The videos with a dropoff in the bucket in which one is planted, or with any where none is."""
    found = client.query("select video_id, start_second from marts.dropoff_points").result_rows
    return {video for video, start in found if planted[video] in (None, start // BUCKET_S)}


def peaks_found(client: Client) -> dict[str, list[tuple[str, int, int]]]:
    """The confirmed spikes and dips of each video: kind, first second, and first second after it."""
    sql = "select video_id, kind, start_second, end_second from marts.key_moments where kind in ('spike', 'dip')"
    found: dict[str, list[tuple[str, int, int]]] = {}
    for video, *stretch in client.query(sql).result_rows:
        found.setdefault(video, []).append((stretch[0], stretch[1], stretch[2]))
    return found
