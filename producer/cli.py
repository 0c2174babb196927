"""`retention produce`: history or live viewers, published or printed."""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from producer.catalogue import CATALOGUE
from producer.publisher import Publisher
from producer.session import Session
from producer.simulator import Crowd, history, in_sending_order
from producer.truth import TruthFile
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
        truth_file = stack.enter_context(TruthFile(truth)) if truth else None
        if not history_days:
            _live(Crowd(seed, *_bounds(viewers), rate or None), truth_file, limit, dry_run)
        elif dry_run:
            _print_history(seed, history_days, sessions, _moment(end), truth_file, limit)
        else:
            publish_history(
                get_settings(),
                seed=seed,
                days=history_days,
                sessions=sessions,
                end=_moment(end),
                console=Console(stderr=True),
                truth=truth_file,
                limit=limit,
            )


def publish_history(
    settings: Settings,
    *,
    seed: int,
    days: int,
    sessions: int,
    end: datetime,
    console: Console,
    truth: TruthFile | None = None,
    limit: int = 0,
) -> int:
    """Publish the catalogue and a history, never far ahead of ingest; returns the messages when all are stored.

    Raises ServiceError when the broker is away or ingest does not move.
    """
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
                yield session

        def advance(count: int) -> None:
            nonlocal events
            events += count
            progress.update(task, completed=begun, events=events)

        publisher.publish(VIDEOS_TOPIC, _catalogue())
        published = publisher.publish(EVENTS_TOPIC, _messages(counted(), end, truth, limit), advance)
        progress.update(task, description="waiting for ingest")
        publisher.wait_until_stored()
    return published


def _messages(
    sessions: Iterator[Session], end: datetime, truth: TruthFile | None, limit: int
) -> Iterator[tuple[str, bytes]]:
    """Keys and messages in the order they are sent, the first ``limit`` of them; all when it is 0."""
    in_order = in_sending_order(sessions, int(end.timestamp() * 1000))
    for count, (session, message) in enumerate(in_order, start=1):
        if truth is not None:
            truth.note(session, message)
        yield session.session_id, message
        if count == limit:
            return


def _catalogue() -> Iterable[tuple[str, bytes]]:
    return [(demo.video.key, demo.video.to_json()) for demo in CATALOGUE]


def _print_history(seed: int, days: int, sessions: int, end: datetime, truth: TruthFile | None, limit: int) -> None:
    printer = _Printer()
    printer.publish(VIDEOS_TOPIC, _catalogue())
    printer.publish(EVENTS_TOPIC, _messages(history(seed, sessions, days, end), end, truth, limit))


class _Printer:
    """In the publisher's place for a dry run: JSON lines on standard output."""

    def send(self, topic: str, key: str, value: bytes) -> None:
        sys.stdout.buffer.write(value + b"\n")

    def publish(self, topic: str, messages: Iterable[tuple[str, bytes]]) -> None:
        for key, value in messages:
            self.send(topic, key, value)

    def flush(self, seconds: float) -> None:
        sys.stdout.flush()


def _live(crowd: Crowd, truth: TruthFile | None, limit: int, dry_run: bool) -> None:
    """Send each message when its time has come, until SIGTERM or SIGINT."""
    # Until the first viewer comes there is nothing to finish: a stop need not wait for a broker that is away, nor
    # raise an exception wherever the program happens to be, which a caller in C may turn into another one.
    _on_stop(lambda: os._exit(0))
    publisher = _Printer() if dry_run else Publisher(get_settings(), flow_control=False)
    publisher.publish(VIDEOS_TOPIC, _catalogue())
    stopping = threading.Event()
    _on_stop(stopping.set)
    waiting: list[tuple[int, int, Session, bytes]] = []
    made = sent = 0
    while not stopping.is_set():
        now = int(time.time() * 1000)
        for session in crowd.arrivals(now):
            for due, message in session.messages:
                heapq.heappush(waiting, (due, made, session, message))
                made += 1
        while waiting and waiting[0][0] <= now:
            _, _, session, message = heapq.heappop(waiting)
            publisher.send(EVENTS_TOPIC, session.session_id, message)
            if truth is not None:
                truth.note(session, message)
            sent += 1
            if sent == limit:
                stopping.set()
                break
        if dry_run:
            publisher.flush(0)
        stopping.wait(0.1)
    publisher.flush(1.5)


def _on_stop(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


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
