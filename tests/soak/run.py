"""One soak: traffic, faults and refreshes for some minutes, then rest, one more refresh, and the comparison."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from retention_platform.errors import RetentionError
from retention_platform.ingest.broker import lag_of, watching
from tests import live_oracle
from tests.delivery import faults, world
from tests.delivery.faults import Fault
from tests.delivery.world import World
from tests.soak import brokers, verdict
from tests.soak.log import Sender, Witness
from tests.soak.refreshing import Refresher
from tests.soak.traffic import Traffic

#: A disk this big is filled to its last byte; all of a soak's data must fit on it.
DISK_BYTES = 2 << 30
#: The last of it goes at the pace of a disk, which gives ClickHouse time to see how little room there is.
LAST_BYTES = 256 << 20
BYTES_A_SECOND = 250 << 20


@dataclass(frozen=True)
class Plan:
    """What to do."""

    seconds: float
    rate: float
    seed: int
    kafka: bool
    deduplicate: bool = True
    #: Of these kinds alone; none: of every kind there is.
    only: Sequence[str] = ()
    #: It goes on until every kind happened so often, however slow the machine is.
    rounds: int = 0
    #: Seconds between two faults, at most.
    calm: float = 5.0
    #: Seconds between two refreshes while events come; 0: none then.
    refresh_rest: float = 3.0
    #: Jobs of Dagster that the last refresh runs: the marts, then the checks that compare with the broker.
    jobs: tuple[str, ...] = ("marts", "watch")


@dataclass
class Suffered:
    """One fault: seconds that it lasted, and from its end until ingest had stored what was in the log then."""

    kind: str
    lasted: float
    recovered: float


@dataclass
class State:
    """How far a soak is; written by its threads and shown while it runs."""

    plan: Plan
    stage: str = "starts"
    broker: str = ""
    began: float = 0.0
    elapsed: float = 0.0
    sender: Sender | None = None
    witness: Witness | None = None
    refresher: Refresher | None = None
    stored: int = 0
    rejected: int = 0
    in_marts: int = 0
    #: The machine's load, a figure a second.
    loads: list[float] = field(default_factory=list)
    suffered: list[Suffered] = field(default_factory=list)
    #: Kinds of faults that cannot be had here, and why.
    left_out: dict[str, str] = field(default_factory=dict)
    #: Seconds from the last message until all was stored.
    settled: float = 0.0
    #: What differs, in a line, or why there was nothing to compare; None at the end: nothing differs.
    difference: str | None = "it did not end"


def soak(plan: Plan, state: State, note: Callable[[str], None]) -> None:
    """Run it; ``state.difference`` is the result. ``note`` is told of each step in a line."""
    try:
        _soak(plan, state, note)
    except Exception as error:
        state.difference = " ".join(f"{type(error).__name__}: {error}".split()).removeprefix("AssertionError: ")[:1000]
        if not isinstance(error, (AssertionError, RetentionError)):
            note(traceback.format_exc())


def _soak(plan: Plan, state: State, note: Callable[[str], None]) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        broker = stack.enter_context((brokers.apache_kafka if plan.kafka else brokers.development)(folder))
        state.broker = broker.name
        disk = stack.enter_context(_small_disk(folder, state)) if _wanted(plan, "the_disk_is_full") else None
        place = stack.enter_context(
            world.running(
                folder / "world",
                broker.address,
                plan.seed,
                log_id=broker.log_id,
                deduplicate=plan.deduplicate,
                clickhouse_folder=disk and disk / "clickhouse",
            )
        )
        _prepare(place)
        kinds = [*faults.ALL, *broker.faults, *([_disk_is_full(disk)] if disk else [])]
        try:
            _live_through(place, plan, [kind for kind in kinds if _wanted(plan, kind.__name__)], state, note)
            _judge(place, plan, state, note)
            state.difference = None
        finally:
            state.stage = "ends"
            for thread in (state.sender, state.witness, state.refresher):
                if thread is not None:
                    thread.finish()


def _wanted(plan: Plan, kind: str) -> bool:
    return not plan.only or kind in plan.only


def _prepare(place: World) -> None:
    """Batches as long as a deployed ingest's; and ClickHouse must not mind the number of parts: raw is not merged, so
    that whatever came twice stays to be counted.
    """
    place.ingest_settings = {"INGEST_BATCH_SECONDS": "1", "INGEST_BATCH_ROWS": "5000"}
    for table in ("playback_events", "rejected_events"):
        limits = "parts_to_delay_insert = 1000000, parts_to_throw_insert = 1000000"
        place.ask(f"alter table raw.{table} modify setting {limits}")


def _live_through(place: World, plan: Plan, kinds: Sequence[Fault], state: State, note: Callable[[str], None]) -> None:
    traffic = Traffic(plan.seed, plan.rate, int(time.time() * 1000))
    sender = state.sender = Sender(place.settings.kafka_bootstrap_servers, traffic)
    witness = state.witness = Witness(place.settings.kafka_bootstrap_servers, sender.kinds)
    refresher = Refresher(place.settings, place.folder, plan.seed, rest=plan.refresh_rest, killed=1 / 3)
    state.refresher = refresher
    ended = threading.Event()
    threading.Thread(target=_count, args=(place, state, ended), daemon=True).start()
    try:
        place.start_ingest()
        sender.start()
        witness.start()
        world.wait_until(lambda: state.stored > 0, "the first events to be stored")
        state.stage, state.began = "events and faults", time.monotonic()
        if plan.refresh_rest:
            refresher.start()
        rng = random.Random(f"order of faults {plan.seed}")
        rounds = _rounds(rng, kinds)

        def goes_on() -> bool:
            return time.monotonic() - state.began < plan.seconds or len(state.suffered) < plan.rounds * len(kinds)

        while goes_on():
            time.sleep(rng.uniform(0.2, plan.calm))
            if (kind := next(rounds, None)) is not None and goes_on():
                suffered = _suffer(place, kind)
                state.suffered.append(suffered)
                at = time.monotonic() - state.began
                again = f"well {suffered.recovered:.1f} s later"
                note(f"{at:6.0f} s  {told(suffered.kind)}, {suffered.lasted:.1f} s; {again}")
            assert sender.failed is None, f"the sender died: {sender.failed!r}"
            assert "Traceback" not in place.log(), "an ingest ended with a traceback: see its log"
        state.elapsed = time.monotonic() - state.began
        state.stage = "settles"
        began = time.monotonic()
        if plan.refresh_rest:
            refresher.finish()
        sender.finish()
        assert sender.failed is None, f"the sender died: {sender.failed!r}"
        place.settle()
        world.wait_until(lambda: witness.has_read(place.ends()), "the witness to read the whole log")
        state.settled = time.monotonic() - began
    finally:
        ended.set()


def _rounds(rng: random.Random, kinds: Sequence[Fault]) -> Iterator[Fault]:
    """Every kind once in a seeded order, and again."""
    while kinds:
        yield from rng.sample(kinds, len(kinds))


def _suffer(place: World, kind: Fault) -> Suffered:
    """Let it happen and wait until ingest has stored what was in the log at its end."""
    began = time.monotonic()
    kind(place)
    ended = time.monotonic()
    place.ingests = [process for process in place.ingests if process.runs]
    ends: dict[int, int] = {}
    with watching(place.settings) as consumer:

        def recovered() -> bool:
            with contextlib.suppress(RetentionError):
                places = [place for place in lag_of(consumer, place.settings) if place.topic == world.TOPIC]
                for one in places:
                    ends.setdefault(one.partition, one.end)
                return all(one.end - one.lag >= ends[one.partition] for one in places)
            return False

        world.wait_until(recovered, f"ingest to go on after {told(kind.__name__)}: {place.log()[-300:]}")
    return Suffered(kind.__name__, ended - began, time.monotonic() - ended)


def _judge(place: World, plan: Plan, state: State, note: Callable[[str], None]) -> None:
    sender, witness, refresher = state.sender, state.witness, state.refresher
    assert sender is not None and witness is not None and refresher is not None
    state.stage = "compares"
    ((state.stored,),) = place.ask("select count() from raw.playback_events")
    ((state.rejected,),) = place.ask("select count() from raw.rejected_events")
    events = [json.loads(value) for value in witness.log.values() if sender.kinds[value] == "event"]
    verdict.assert_log_is_whole(sender, witness, place.ends())
    note(f"        log: {len(witness.log):,} messages, every acknowledged one in its place")
    verdict.assert_stored_once(place.ask, sender, witness.log)
    note(f"        raw: {len(events):,} events and {len(witness.log) - len(events):,} rejects, each once")
    live_oracle.assert_live(place.ask, events)
    note("        live: as recomputed")
    state.stage = "refreshes"
    assert refresher.refresh(jobs=plan.jobs), f"the last refresh failed: {refresher.why()}"
    state.stage = "compares"
    verdict.assert_marts(place, events, sender.videos)
    ((state.in_marts,),) = place.ask("select sum(events) from marts.sessions")
    note("        marts: as recomputed")


def _count(place: World, state: State, ended: threading.Event) -> None:
    """Keep counting what is stored, as far as ClickHouse answers."""
    sql = "select (select count() from raw.playback_events), (select count() from raw.rejected_events)"
    url = f"http://127.0.0.1:{place.clickhouse_port}/"
    while not ended.wait(1.0):
        state.loads.append(os.getloadavg()[0])
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = httpx.get(url, params={"query": sql}, timeout=2, trust_env=False)
            state.stored, state.rejected = (int(count) for count in answer.text.split())


@contextlib.contextmanager
def _small_disk(folder: Path, state: State) -> Iterator[Path | None]:
    """A disk that can be filled without harm to others; None where none can be mounted."""
    small = folder / "disk"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = mounted.stderr.strip() if mounted.returncode else None
    except OSError as error:
        reason = str(error)
    if reason is not None:
        state.left_out["the_disk_is_full"] = f"a small disk cannot be mounted here: {reason}"
        yield None
        return
    try:
        yield small
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def _disk_is_full(disk: Path) -> Fault:
    def the_disk_is_full(place: World) -> None:
        """To its last byte, as fast as a disk writes, until ingest has said that ClickHouse refuses a batch."""
        before = place.log().count("did not take the batch")
        filler = disk / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(disk).free - LAST_BYTES))
                file.seek(0, os.SEEK_END)

                def refused() -> bool:
                    # Merges give room back: it is filled as well.
                    for size in (1 << 20, 1 << 12):
                        with contextlib.suppress(OSError):
                            while file.write(bytes(size)) == size:
                                time.sleep(size / BYTES_A_SECOND)
                    return place.log().count("did not take the batch") > before

                world.wait_until(refused, "ingest to say that ClickHouse refuses a batch")
                faults.nap(place, 0.5, 2)
        finally:
            filler.unlink(missing_ok=True)

    return the_disk_is_full


def told(kind: str) -> str:
    """A fault's name in words."""
    return kind.replace("_", " ").replace("clickhouse", "ClickHouse")


def by_kind(suffered: Sequence[Suffered]) -> list[tuple[str, int, float, float]]:
    """Of each kind of fault: how often, and of the seconds to recover the median and the longest."""
    found = []
    for kind in sorted({one.kind for one in suffered}):
        seconds = [one.recovered for one in suffered if one.kind == kind]
        found.append((told(kind), len(seconds), statistics.median(seconds), max(seconds)))
    return found
