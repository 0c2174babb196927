"""Does demo mode find what was planted? Simulated videos through raw, dbt and marts; then facts and rules, as always.

Not a measure of speed: figures are the same on every machine. BENCH_INSIGHTS_SEEDS chooses how many seeds.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.insights_videos import CAUSES, NOTHING, Planted, messages, planted
from benchmarks.marts_build import Dbt
from benchmarks.report import Report
from producer.behaviours import cumulative_hazard
from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.embedded.clickhouse import running
from retention_platform.insights.facts import facts_of, stretches_of
from retention_platform.insights.queries import read_evidence, read_video
from retention_platform.insights.rules import analysis_of
from retention_platform.insights.schema import Analysis
from retention_platform.report.queries import asking
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SEEDS = 200
#: The first of them; the rules' thresholds were chosen on seeds below 1100.
FIRST_SEED = 2000
#: Seeds whose videos are in the catalogue at one time.
AT_ONCE = 25
#: Messages of one insert.
BATCH = 50_000
#: A moment names what was planted when it is so near, in seconds or in hundredths of the video.
NEAR_SECONDS, NEAR_PARTS = 10, 0.02


@dataclass(frozen=True)
class Outcome:
    """What demo mode said of one video."""

    video: Planted
    analysis: Analysis

    @property
    def claims(self) -> bool:
        """Whether it claims any reason to leave."""
        return bool(self.analysis.hypotheses)

    @property
    def names_moment(self) -> bool:
        """Whether the moment it tells first is where something was planted."""
        if not self.claims:
            return False
        first = self.analysis.critical_moments[0]
        near = max(NEAR_SECONDS, NEAR_PARTS * self.video.demo.duration_ms / 1000)
        return first.start_second <= self.video.end + near and first.end_second >= self.video.start - near

    @property
    def names_cause(self) -> bool:
        """Whether the first reason it gives for the moment it tells first is of the kind that was planted."""
        return self.claims and self.analysis.hypotheses[0].cause == self.video.cause


def run(report: Report, seeds: int | None = None) -> None:
    """Plant each cause, and none, once a seed, and tell what was said of them."""
    count = seeds or int(os.environ.get("BENCH_INSIGHTS_SEEDS", SEEDS))
    outcomes: list[Outcome] = []
    for some in batches(count):
        outcomes += judged([planted(seed, cause) for seed in some for cause in (*CAUSES, NOTHING)])
        report.console.print(f"{len(outcomes):,} of {count * (len(CAUSES) + 1):,} videos")
    tell(report, outcomes)


def batches(count: int) -> list[range]:
    """The seeds, as many at a time as share a catalogue."""
    last = FIRST_SEED + count
    return [range(first, min(last, first + AT_ONCE)) for first in range(FIRST_SEED, last, AT_ONCE)]


def tell(report: Report, outcomes: Sequence[Outcome]) -> None:
    """What was said of these videos, by what was planted in them."""
    clean = [outcome for outcome in outcomes if outcome.video.cause == NOTHING]
    views = [outcome.video.views for outcome in outcomes]
    report.text(
        f"{len(clean)} seeds, each with one video a cause and one without: {len(outcomes):,} videos of 5 to 15 minutes "
        f"with {min(views)} to {max(views)} views, those of {min(len(clean), AT_ONCE)} seeds in one catalogue."
    )
    rows = [_row(cause, [outcome for outcome in outcomes if outcome.video.cause == cause]) for cause in CAUSES]
    rows.append(_row("all planted", [outcome for outcome in outcomes if outcome.video.cause != NOTHING]))
    report.table(("planted", "videos", "moment named first", "kind of cause", "said instead"), rows)
    wrong = sum(outcome.claims for outcome in clean)
    report.text(f"Of {len(clean)} videos without a planted cause, {len(clean) - wrong} were told to have none.")


def _row(name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    moments = sum(outcome.names_moment for outcome in outcomes)
    causes = sum(outcome.names_moment and outcome.names_cause for outcome in outcomes)
    others = Counter(
        outcome.analysis.hypotheses[0].cause if outcome.claims else "none"
        for outcome in outcomes
        if not (outcome.names_moment and outcome.names_cause)
    )
    said = ", ".join(f"{cause} {count}" for cause, count in others.most_common(3)) or "–"
    return (name, f"{len(outcomes)}", f"{_share(moments, outcomes)}", f"{_share(causes, outcomes)}", said)


def _share(count: int, outcomes: Sequence[Outcome]) -> str:
    return f"{100 * count / len(outcomes):.1f} %"


def judged(videos: Sequence[Planted]) -> list[Outcome]:
    """What demo mode says of these videos, in a warehouse of their own."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "clickhouse") as server:
        settings = load_settings(retention_home=Path(folder), clickhouse_host="127.0.0.1", clickhouse_port=server.port)
        client = connect(settings)
        try:
            migrate(client)
            _fill(client, videos)
            Dbt(settings, Path(folder)).build(full=True, select=())
            ask, outcomes = asking(client), []
            for video in videos:
                rows = read_video(ask, video.video_id)
                facts = facts_of(rows, read_evidence(ask, video.video_id, stretches_of(rows)))
                outcomes.append(Outcome(video, analysis_of(facts)))
            return outcomes
        finally:
            client.close()


def _fill(client: Client, videos: Sequence[Planted]) -> None:
    offsets = itertools.count()
    columns = ["log_id", "topic", "partition", "offset", "message_time", "key", "payload"]

    def insert(topic: str, payloads: Sequence[str]) -> None:
        rows = [["bench", topic, 0, next(offsets), 0, "", payload] for payload in payloads]
        client.insert("raw.inbox", rows, column_names=columns)

    insert(VIDEOS_TOPIC, [video.demo.video.model_dump_json() for video in videos])
    batch: list[str] = []
    for number, video in enumerate(videos):
        batch += [message.decode() for message in messages(video, number)]
        # Of videos that nobody watches any more.
        cumulative_hazard.cache_clear()
        if len(batch) >= BATCH:
            insert(EVENTS_TOPIC, batch)
            batch = []
    if batch:
        insert(EVENTS_TOPIC, batch)
