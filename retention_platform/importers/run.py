"""`retention convert` and `retention import`: run an importer over a file, print or publish, and account for it all.

Publishing goes through the topic like any event; the import ends when ingest has stored everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC, PlaybackEvent, Video
from retention_platform.errors import RetentionError
from retention_platform.importers import FORMATS
from retention_platform.importers.reading import Line, Outcome, Problem, read_lines

#: How many problems are told one by one; the summary counts them all.
MAX_TOLD = 20

Query = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]


class Publisher(Protocol):
    """What an import needs of the publisher."""

    def publish(
        self, topic: str, messages: Iterable[tuple[str, bytes]], progress: Callable[[int], None] | None = None
    ) -> int:
        """Publish (key, value) pairs, bounded by what ingest has stored; how many were acknowledged."""

    def wait_until_stored(self) -> None:
        """Return when ingest has stored everything that was published."""


@dataclass
class ImportSummary:
    """What became of a file."""

    lines: int = 0
    events: int = 0
    videos: int = 0
    published: int = 0
    #: Distinct events of this file that the warehouse holds now.
    stored: int = 0
    #: Of these, the ones that were there before.
    known: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def table(self, path: Path) -> Table:
        """The summary for people."""
        table = Table(title=path.name, title_justify="left", show_header=False, box=None)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(overflow="fold")
        table.add_row("read", f"{self.lines:,}", f"lines: {self.events:,} events, {self.videos:,} videos made of them")
        table.add_row("published", f"{self.published:,}", "messages")
        known = f", {self.known:,} of them known before" if self.known else ""
        table.add_row("stored", f"{self.stored:,}", f"events{known}")
        for reason, count in self.rejected.most_common():
            table.add_row("rejected", f"{count:,}", reason)
        for reason, count in self.problems.most_common():
            table.add_row("left out", f"{count:,}", reason)
        return table


class Counted:
    """The lines of a file, counted while an importer reads them."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = lines
        self.count = 0

    def __iter__(self) -> Iterator[Line]:
        for line in self._lines:
            self.count += 1
            yield line


def convert_file(name: str, path: Path, out: TextIO, errors: TextIO) -> int:
    """Print the contract messages of a file as JSON lines, problems with their line number to ``errors``.

    Returns the number of messages. Raises RetentionError when the file gives none.
    """
    lines = Counted(read_lines(path))
    made = 0
    for outcome in _importer(name)(lines):
        if isinstance(outcome, Problem):
            print(f"{path}:{outcome.line}: {outcome.reason}", file=errors)
        else:
            out.write(outcome.to_json().decode() + "\n")
            made += 1
    if not made:
        raise _nothing(name, path, lines.count)
    return made


def import_file(name: str, path: Path, publisher: Publisher, query: Query, console: Console) -> ImportSummary:
    """Publish a file's messages and wait until all is stored. Doing it twice changes nothing.

    Raises RetentionError when the file gives no message, or when broker, ingest or warehouse are away.
    """
    summary = ImportSummary()
    lines = Counted(read_lines(path))
    with console.status(f"reading {path.name} …"):
        outcomes: list[Outcome] = list(_importer(name)(lines))
    summary.lines = lines.count
    problems = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    for problem in problems[:MAX_TOLD]:
        console.print(f"{path.name}:{problem.line}: {problem.reason}", markup=False, highlight=False)
    if len(problems) > MAX_TOLD:
        console.print(f"… and {len(problems) - MAX_TOLD:,} more; `retention convert {name} {path}` tells them all")
    summary.problems.update(problem.reason for problem in problems)
    videos = [outcome for outcome in outcomes if isinstance(outcome, Video)]
    events = [outcome for outcome in outcomes if isinstance(outcome, PlaybackEvent)]
    summary.videos, summary.events = len(videos), len(events)
    if not videos and not events:
        raise _nothing(name, path, lines.count)

    ids = {event.event_id for event in events}
    span = (
        min((event.event_time for event in events), default=None),
        max((event.event_time for event in events), default=None),
    )
    summary.known = _stored(query, ids, span)
    rejects_before = _rejects(query)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("publishing", total=len(videos) + len(events))
        advance = lambda count: progress.advance(task, count)  # noqa: E731
        summary.published = publisher.publish(VIDEOS_TOPIC, ((v.key, v.to_json()) for v in videos), advance)
        summary.published += publisher.publish(EVENTS_TOPIC, ((e.key, e.to_json()) for e in events), advance)
        progress.update(task, description="waiting for ingest")
        publisher.wait_until_stored()
    summary.stored = _stored(query, ids, span)
    summary.rejected = _rejects(query) - rejects_before
    return summary


def _importer(name: str) -> Callable[[Iterable[Line]], Iterator[Outcome]]:
    if name not in FORMATS:
        raise RetentionError(f"no format {name!r}: choose one of {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def _nothing(name: str, path: Path, lines: int) -> RetentionError:
    if not lines:
        return RetentionError(f"{path} is empty")
    others = ", ".join(sorted(FORMATS.keys() - {name}))
    return RetentionError(f"none of the {lines:,} lines of {path} gives an event as {name}: is it {others}?")


def _stored(query: Query, ids: set[str], span: tuple[Any, Any]) -> int:
    """How many of these events the warehouse holds."""
    if not ids:
        return 0
    found = query(
        "select distinct toString(event_id) from raw.playback_events "
        "where event_time between {first:DateTime64(3)} and {last:DateTime64(3)}",
        {"first": span[0], "last": span[1]},
    )
    return len(ids & {str(row[0]) for row in found})


def _rejects(query: Query) -> Counter[str]:
    """Rejected messages by reason, as of now."""
    rows = query("select reason, count() from raw.rejected_events final group by reason", {})
    return Counter({str(reason): int(count) for reason, count in rows})
