"""`retention produce`: history or live viewers, published or printed."""

from __future__ import annotations

import contextlib
import heapq
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from producer.catalogue import CATALOGUE
from producer.publisher import Publisher
from producer.simulator import Crowd, Session, history, in_sending_order
from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.errors import RetentionError
from retention_platform.settings import Settings, get_settings


def produce(
    history_days: Annotated[
        int, typer.Option("--history", metavar="DAYS", min=0, help="Publish that many days of the past, then end.")
    ] = 0,
    sessions: Annotated[int, typer.Option(min=1, help="How many sessions of history.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed invents the same viewers.")] = 1,
    end: Annotated[str, typer.Option(metavar="TIME", help="End of the history, ISO 8601; empty: now.")] = "",
    viewers: Annotated[str, typer.Option(metavar="MIN..MAX", help="Live: how many watch at once.")] = "1..8",
    rate: Annotated[float, typer.Option(min=0, help="Live: about so many events a second instead.")] = 0.0,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each session's true watched intervals, JSON lines.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="End after so many events; 0: no limit.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the messages instead of publishing them.")] = False,
) -> None:
    """Invent viewers: live ones until stopped, or with --history a past that is the same for the same seed and end.

    Examples:

      retention produce                               one to eight viewers, live

      retention produce --rate 500                    about 500 events a second

      retention produce --history 30 --sessions 20000 --truth truth.jsonl

      retention produce --history 1 --sessions 5 --dry-run | head
    """
    with contextlib.ExitStack() as stack:
        truth_file = stack.enter_context(_open(truth)) if truth else None
        if history_days:
            moment = _moment(end)
            if dry_run:
                _print_history(seed, history_days, sessions, moment, truth_file, limit)
            else:
                publish_history(
                    get_settings(),
                    seed=seed,
                    days=history_days,
                    sessions=sessions,
                    end=moment,
                    console=Console(stderr=True),
                    truth=truth_file,
                    limit=limit,
                )
        else:
            minimum, maximum = _bounds(viewers)
            _live(Crowd(seed, minimum, maximum, rate or None), truth_file, limit, dry_run)


def publish_history(
    settings: Settings,
    *,
    seed: int,
    days: int,
    sessions: int,
    end: datetime,
    console: Console,
    truth: BinaryIO | None = None,
    limit: int = 0,
) -> int:
    """Publish the catalogue and a history, never far ahead of ingest; returns the messages when all are stored.

    Raises ServiceError when the broker is away or ingest does not move.
    """
    end_ms = int(end.timestamp() * 1000)
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} sessions, {task.fields[events]:,} events"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Publisher(settings) as publisher, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{days} days of history", total=sessions, events=0)
        begun = events = 0

        def counted() -> Iterator[Session]:
            nonlocal begun
            for session in history(seed, sessions, days, end):
                begun += 1
                if truth is not None:
                    truth.write(session.truth() + b"\n")
                yield session

        def messages() -> Iterator[tuple[str, bytes]]:
            for session, message in in_sending_order(counted(), end_ms):
                yield session.session_id, message

        def advance(count: int) -> None:
            nonlocal events
            events += count
            progress.update(task, completed=begun, events=events)

        publisher.publish(VIDEOS_TOPIC, _catalogue())
        published = publisher.publish(EVENTS_TOPIC, _first(messages(), limit), advance)
        progress.update(task, description="waiting for ingest")
        publisher.wait_until_stored()
    return published


def _first(messages: Iterator[tuple[str, bytes]], limit: int) -> Iterator[tuple[str, bytes]]:
    """The first ``limit`` messages; all when it is 0."""
    for count, message in enumerate(messages, start=1):
        yield message
        if count == limit:
            return


def _catalogue() -> Iterable[tuple[str, bytes]]:
    return [(demo.video.key, demo.video.to_json()) for demo in CATALOGUE]


def _print_history(seed: int, days: int, sessions: int, end: datetime, truth: BinaryIO | None, limit: int) -> None:
    def told() -> Iterator[Session]:
        for session in history(seed, sessions, days, end):
            if truth is not None:
                truth.write(session.truth() + b"\n")
            yield session

    in_order = in_sending_order(told(), int(end.timestamp() * 1000))
    for _, message in _first(((session.session_id, message) for session, message in in_order), limit):
        sys.stdout.buffer.write(message + b"\n")


def _live(crowd: Crowd, truth: BinaryIO | None, limit: int, dry_run: bool) -> None:
    """Send each message when its time has come, until SIGTERM or SIGINT."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    publisher = None if dry_run else Publisher(get_settings(), flow_control=False)
    waiting: list[tuple[int, int, str, bytes]] = []
    made = sent = 0
    if publisher is not None:
        publisher.publish(VIDEOS_TOPIC, _catalogue())
    while not stopping.is_set() and not (limit and sent >= limit):
        now = int(time.time() * 1000)
        for session in crowd.arrivals(now):
            if truth is not None:
                truth.write(session.truth() + b"\n")
            for due, message in session.messages:
                heapq.heappush(waiting, (due, made, session.session_id, message))
                made += 1
        while waiting and waiting[0][0] <= now and not (limit and sent >= limit):
            _, _, key, message = heapq.heappop(waiting)
            if publisher is None:
                sys.stdout.buffer.write(message + b"\n")
            else:
                publisher.send(EVENTS_TOPIC, key, message)
            sent += 1
        if publisher is None:
            sys.stdout.flush()
        stopping.wait(0.1)
    if publisher is not None:
        publisher.flush(2.0)


def _bounds(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    minimum, maximum = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= minimum <= maximum:
        raise RetentionError(f"--viewers {text!r} cannot be used: give MIN..MAX with 1 <= MIN <= MAX, as in 1..8")
    return minimum, maximum


def _moment(text: str) -> datetime:
    if not text:
        return datetime.now(timezone.utc)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise RetentionError(f"--end {text!r} cannot be used: give a time as 2026-01-31T00:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise RetentionError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
