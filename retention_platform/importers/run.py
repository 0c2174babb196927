"""`retention convert` and `retention import`: run an importer over a file, print or publish, and account for it all.

Publishing goes through the topic like any event; the import ends when ingest has stored everything.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC, Video
from retention_platform.errors import RetentionError
from retention_platform.importers import FORMATS
from retention_platform.importers.reading import Line, Outcome, Problem, read_lines

#: How many problems are told one by one; the summary counts them all.
MAX_TOLD = 20
#: Bytes of messages kept in memory before they go to a temporary file.
SPOOL_BYTES = 32 * 1024 * 1024
#: Event ids asked after in one query: 80 KB of text, of the 256 KiB that ClickHouse takes by default.
IDS_A_QUERY = 2000

#: The ids of events, as 16 bytes, by (video, session).
Placed = dict[tuple[str, str], set[bytes]]
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
    #: Events whose id another event of the file has too: each counts once.
    repeated: int = 0
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
        repeated = f"; {self.repeated:,} more repeat an event of the file" if self.repeated else ""
        table.add_row("stored", f"{self.stored:,}", f"events{known}{repeated}")
        for reason, count in self.rejected.most_common():
            table.add_row("rejected", f"{count:,}", reason)
        for reason, count in self.problems.most_common():
            table.add_row("left out", f"{count:,}", reason)
        return table


class Spool:
    """Messages of one topic between reading and publishing, so that a file larger than memory can be imported.

    Nothing is published before the whole file is read: a file that breaks off publishes nothing. Use as a context
    manager; closing it deletes what went to disk.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        self.count = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, key: str, value: bytes) -> None:
        """Keep a message; neither JSON text holds a raw tab or line end."""
        self._file.write(json.dumps(key).encode() + b"\t" + value + b"\n")
        self.count += 1

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """The messages in the order they came."""
        self._file.seek(0)
        for line in self._file:
            key, _, value = line.rstrip(b"\n").partition(b"\t")
            yield json.loads(key), value


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
    # Held back until something is made: of a file in another format each line would be told.
    problems: list[Problem] = []
    for outcome in _importer(name)(lines):
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            out.write(outcome.to_json().decode() + "\n")
            made += 1
        if made:
            for problem in problems:
                print(f"{path}:{problem.line}: {problem.reason}", file=errors)
            problems.clear()
    if not made:
        raise _nothing(name, path, lines.count, problems)
    return made


def import_file(name: str, path: Path, publisher: Publisher, query: Query, console: Console) -> ImportSummary:
    """Publish a file's messages and wait until all is stored. Doing it twice changes nothing.

    Raises RetentionError when the file gives no message, or when broker, ingest or warehouse are away.
    """
    summary = ImportSummary()
    lines = Counted(read_lines(path))
    placed: Placed = defaultdict(set)
    first: list[Problem] = []
    with Spool() as videos, Spool() as events:
        with console.status(f"reading {path.name} …"):
            for outcome in _importer(name)(lines):
                if isinstance(outcome, Problem):
                    # Without what is in brackets, which tells of one line only.
                    summary.problems[outcome.reason.partition(" (")[0]] += 1
                    if len(first) < MAX_TOLD:
                        first.append(outcome)
                elif isinstance(outcome, Video):
                    videos.add(outcome.key, outcome.to_json())
                else:
                    events.add(outcome.key, outcome.to_json())
                    placed[outcome.video_id, outcome.session_id].add(uuid.UUID(outcome.event_id).bytes)
        summary.lines, summary.videos, summary.events = lines.count, videos.count, events.count
        summary.repeated = events.count - sum(map(len, placed.values()))
        if not videos.count and not events.count:
            raise _nothing(name, path, lines.count, first)
        _tell(first, name, path, summary, console)
        began_ms = int(query("select toUnixTimestamp64Milli(now64(3))", {})[0][0])
        summary.known = _stored(query, placed)
        summary.published = _publish(publisher, videos, events, console)
    summary.stored = _stored(query, placed)
    keys = {key for place in placed for key in place}
    summary.rejected = _rejected(query, keys, began_ms)
    return summary


def _publish(publisher: Publisher, videos: Spool, events: Spool, console: Console) -> int:
    """Publish and wait until ingest has stored all; how many messages the broker acknowledged."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("publishing", total=videos.count + events.count)

        def advance(count: int) -> None:
            progress.advance(task, count)

        published = publisher.publish(VIDEOS_TOPIC, videos.messages(), advance)
        published += publisher.publish(EVENTS_TOPIC, events.messages(), advance)
        progress.update(task, description="waiting for ingest")
        publisher.wait_until_stored()
    return published


def _tell(first: list[Problem], name: str, path: Path, summary: ImportSummary, console: Console) -> None:
    """The first problems one by one, and how many more there are."""
    for problem in first:
        console.print(f"{path.name}:{problem.line}: {problem.reason}", markup=False, highlight=False)
    if more := summary.problems.total() - len(first):
        console.print(f"… and {more:,} more; `retention convert {name} {path}` tells them all", markup=False)


def _importer(name: str) -> Callable[[Iterable[Line]], Iterator[Outcome]]:
    if name not in FORMATS:
        raise RetentionError(f"no format {name!r}: choose one of {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def _nothing(name: str, path: Path, lines: int, problems: list[Problem]) -> RetentionError:
    if not lines:
        return RetentionError(f"{path} is empty")
    others = ", ".join(sorted(FORMATS.keys() - {name}))
    why = f" (line {problems[0].line}: {problems[0].reason})" if problems else ""
    return RetentionError(f"none of the {lines:,} lines of {path} gives an event as {name}{why}: is it {others}?")


def _stored(query: Query, placed: Placed) -> int:
    """How many of these events the warehouse holds, asked along the table's order: video, session."""
    total = 0
    for chunk in _chunks(placed):
        (first_video, first_session), (last_video, last_session) = chunk[0][0], chunk[-1][0]
        where = "video_id between {first_video:String} and {last_video:String}"
        bounds = {"first_video": first_video, "last_video": last_video}
        if first_video == last_video:
            # Only within one video are the chunk's first and last session its bounds.
            where += " and session_id between {first_session:String} and {last_session:String}"
            bounds |= {"first_session": first_session, "last_session": last_session}
        # In the text, not as a parameter: they are UUIDs that we wrote, and too many for a URL.
        ids = ", ".join(f"'{uuid.UUID(bytes=identity)}'" for _, identity in chunk)
        found = query(
            f"select uniqExact(event_id) from raw.playback_events where {where} and event_id in ({ids})", bounds
        )
        total += int(found[0][0])
    return total


def _chunks(placed: Placed) -> Iterator[list[tuple[tuple[str, str], bytes]]]:
    """The events by video and session, so many at a time. Text sorts as its UTF-8 does, which is ClickHouse's order."""
    chunk: list[tuple[tuple[str, str], bytes]] = []
    for place in sorted(placed):
        for identity in sorted(placed[place]):
            chunk.append((place, identity))
            if len(chunk) == IDS_A_QUERY:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _rejected(query: Query, keys: set[str], since_ms: int) -> Counter[str]:
    """Messages with these keys rejected since then, by reason: what others send meanwhile is not of this import."""
    rows = query(
        "select key, reason from raw.rejected_events final "
        "where rejected_at >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')",
        {"since_ms": since_ms},
    )
    return Counter(str(reason) for key, reason in rows if key in keys)
