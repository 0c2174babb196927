"""`retention rejects`: list, filter and export messages that were refused, and send mended ones again."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.errors import RetentionError
from retention_platform.ingest.rejects import Filter, Reject, count, export, find, read_export, replay
from retention_platform.settings import get_settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

app = typer.Typer(
    help="Messages that were not the contract, and why: list them, export them to be mended, send them again.",
    no_args_is_help=False,
)
console = Console()

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}

FieldOption = Annotated[str, typer.Option("--field", help="Only those whose fault is in this field.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Only those whose reason holds this text.")]
TopicOption = Annotated[str, typer.Option("--topic", help=f"Only those of this topic: {EVENTS_TOPIC}, {VIDEOS_TOPIC}.")]
SinceOption = Annotated[str, typer.Option("--since", metavar="TIME", help="Only newer ones: 15min, 2h, 3d, or a time.")]


@app.callback(invoke_without_command=True)
def rejects(
    context: typer.Context,
    field: FieldOption = "",
    reason: ReasonOption = "",
    topic: TopicOption = "",
    since: SinceOption = "",
    limit: Annotated[int, typer.Option(min=1, help="How many to show, the newest first.")] = 20,
    replayed: Annotated[bool, typer.Option("--all", help="Also those that were sent again.")] = False,
    export_to: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write all as JSON lines; - for the terminal."),
    ] = None,
) -> None:
    """List messages that were refused: where they are in the log, what is wrong, how they begin.

    [dim]retention rejects --field position_ms --export wrong.jsonl[/dim], mend the payloads in the file, then
    [dim]retention rejects replay wrong.jsonl[/dim].
    """
    if context.invoked_subcommand is not None:
        return
    wanted = Filter(field, reason, topic, moment(since), replayed)
    client = _connect()
    if export_to is not None:
        _export(wanted, export_to)
        return
    total = count(client, wanted)
    if not total:
        console.print("nothing was rejected" if wanted == Filter() else "nothing rejected matches")
        return
    for reject in find(client, wanted, limit):
        when, place, beginning = _shown(reject)
        # Text, since square brackets in a message are no markup. On lines of their own, and only the message is cut:
        # all of the others are told, however narrow the terminal.
        console.print(Text(f"{when}  {place}  {reject.reason}"))
        console.print(Text(f"  {beginning}", "dim"), no_wrap=True, overflow="ellipsis")
    console.print(f"{total:,} rejected in all" if wanted == Filter() else f"{total:,} rejected that match")


@app.command("replay")
def replay_command(
    file: Annotated[
        Path | None, typer.Argument(help="An edited `--export`; without it, what is the contract by now is sent.")
    ] = None,
    field: FieldOption = "",
    reason: ReasonOption = "",
    topic: TopicOption = "",
    since: SinceOption = "",
) -> None:
    """Send rejected messages again that are the contract now, each once; the others are told, and stay."""
    from producer.publisher import Publisher

    settings = get_settings()
    client = _connect()
    wrong = 0

    def on_fault(reject: Reject, fault: str) -> None:
        nonlocal wrong
        wrong += 1
        # Of a file each matters, since somebody mended it; of all there are, the number is enough.
        if file is not None and wrong <= 20:
            place = f"{reject.topic}/{reject.partition} @ {reject.offset}"
            print(f"still wrong: {place}: {fault}", file=sys.stderr)

    with Publisher(settings, flow_control=False) as publisher:
        if file is None:
            result = replay(client, publisher, find(_connect(), _filter(field, reason, topic, since)), on_fault)
        else:
            try:
                with file.open(encoding="utf-8") as lines:
                    result = replay(client, publisher, read_export(lines, file.name), on_fault)
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                raise RetentionError(f"cannot read {file}: {why}") from None
    parts = [f"{result.sent:,} sent again"]
    parts += [f"{result.still_wrong:,} still wrong"] if result.still_wrong else []
    parts += [f"{result.sent_before:,} had been sent before"] if result.sent_before else []
    parts += [f"{result.unknown:,} never rejected here, not sent"] if result.unknown else []
    console.print(", ".join(parts))
    if file is not None and (result.still_wrong or result.unknown):
        raise typer.Exit(1)


def _connect() -> Client:
    # The driver takes longer to import than --help to print.
    from retention_platform.warehouse.client import connect

    return connect(get_settings())


def _filter(field: str, reason: str, topic: str, since: str) -> Filter:
    return Filter(field, reason, topic, moment(since))


def _export(wanted: Filter, to: Path) -> None:
    client = _connect()
    if str(to) == "-":
        export(find(client, wanted), sys.stdout)
        return
    try:
        with to.open("w", encoding="utf-8") as out:
            written = export(find(client, wanted), out)
    except OSError as error:
        raise RetentionError(f"cannot write {to}: {error.strerror}") from None
    console.print(f"{written:,} rejected messages in {to}: mend the payloads, then `retention rejects replay {to}`")


def moment(text: str, now: datetime | None = None) -> datetime | None:
    """When ``15min``, ``2h`` or ``3d`` ago was, or the time that the text gives; None for an empty text."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})\s*(s|min|h|d)", text)
    try:
        if match:
            return (now or datetime.now(timezone.utc)) - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        given = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, OverflowError):
        raise RetentionError(f"--since {text!r} cannot be used: give 15min, 2h, 3d or 2026-01-31T08:00:00Z") from None
    return given if given.tzinfo else given.replace(tzinfo=timezone.utc)


def _shown(reject: Reject) -> tuple[str, str, str]:
    """When in UTC, where in the log, and how the message begins."""
    beginning = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", reject.payload[:400].decode("utf-8", "replace"))
    return (
        f"{reject.rejected_at:%m-%d %H:%M:%S}",
        f"{reject.topic}/{reject.partition} @ {reject.offset}",
        beginning[:200],
    )
