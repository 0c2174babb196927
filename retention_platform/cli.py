"""The `retention` command: thin, it parses words and calls the parts. Errors end in one line and exit code 1."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from producer.cli import produce
from retention_platform import __version__, logs
from retention_platform.embedded.clickhouse import cli as serve_cli
from retention_platform.errors import RetentionError
from retention_platform.ingest import rejects_cli
from retention_platform.insights.cli import insights
from retention_platform.report.cli import report
from retention_platform.settings import get_settings

app = typer.Typer(
    name="retention",
    help="Video retention analytics: where people leave a video, right to the second.",
    epilog="First time here? `retention up` starts everything on this machine and tells you where to look.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(rejects_cli.app, name="rejects")
app.add_typer(serve_cli.app, name="serve")

console = Console()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"retention {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background; return when ready.")] = False,
    simulate: Annotated[
        bool, typer.Option(help="Invent viewers: 30 days of history the first time, then live ones.")
    ] = True,
    history_days: Annotated[int, typer.Option(min=1, max=365, help="Days of invented history.")] = 30,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions of invented history.")] = 20_000,
    viewers: Annotated[str, typer.Option(help="How many invented viewers watch at once: MIN..MAX.")] = "1..8",
) -> None:
    """Start the whole stack on this machine: broker, ClickHouse, ingest, Dagster, API, invented viewers.

    Stays in the foreground; Ctrl-C stops everything and keeps the data. With KAFKA_BOOTSTRAP_SERVERS or
    CLICKHOUSE_HOST set, uses those instead of its own.
    """
    from retention_platform.embedded import up as stack

    if detach:
        arguments = ["--simulate" if simulate else "--no-simulate", "--viewers", viewers]
        arguments += ["--history-days", str(history_days), "--sessions", str(sessions)]
        stack.up_detached(console, arguments)
    else:
        stack.up(console, history_days=history_days, sessions=sessions, viewers=viewers, simulate=simulate)


@app.command()
def down() -> None:
    """Stop a stack that runs in the background, or in another terminal. Data is kept."""
    from retention_platform.embedded.up import down

    down(console)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say of each part whether it is up, how fresh, how far behind. Exit code 1 when one is down."""
    from retention_platform.embedded import status as parts

    found = parts.gather(get_settings())
    if as_json:
        typer.echo(json.dumps(parts.as_dicts(found), indent=2))
    else:
        console.print(parts.table(found))
    if not all(part.up for part in found):
        raise typer.Exit(1)


@app.command()
def migrate() -> None:
    """Bring topics and raw schema up to date. Doing it twice changes nothing."""
    from retention_platform.ingest.broker import ensure_topics
    from retention_platform.warehouse.client import connect
    from retention_platform.warehouse.migrate import migrate

    settings = get_settings()
    applied = migrate(
        connect(settings),
        raw_ttl_days=settings.raw_ttl_days,
        cluster=settings.clickhouse_cluster,
        sharded=settings.clickhouse_sharded,
    )
    typer.echo(f"applied {', '.join(applied)}" if applied else "the schema is up to date")
    if settings.kafka_bootstrap_servers:
        made = ensure_topics(settings, partitions=settings.kafka_partitions)
        typer.echo(f"created topics {', '.join(made)}" if made else "the topics exist")
    else:
        typer.echo("topics not looked at: KAFKA_BOOTSTRAP_SERVERS is not set")


@app.command()
def ingest() -> None:
    """Read the topics into ClickHouse until stopped; waits, and says so, while either is away.

    Several may run: they share the partitions. What one had not stored, another repeats exactly.
    """
    from retention_platform.ingest.consumer import run_ingest

    settings = get_settings()
    logs.to_stderr(settings.log_format)
    # We tell ourselves, once, when ClickHouse is away.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    run_ingest(settings)


@app.command()
def erase(
    viewers: Annotated[list[str], typer.Argument(metavar="VIEWER...", help="Viewer ids as players send them.")],
    rebuild: Annotated[bool, typer.Option(help="Build the marts anew afterwards, through the running Dagster.")] = True,
) -> None:
    """Remove viewers for good: from raw, rejects, the live tables and, by building them anew, the marts.

    What comes of them later, or again because the topic is read once more, is not stored. The topic itself keeps their
    messages as long as its retention says, and so do backups.
    """
    from retention_platform.ingest import erase as erasing
    from retention_platform.ingest.pseudonym import Pseudonyms
    from retention_platform.warehouse.client import connect

    settings = get_settings()
    key = settings.viewer_id_key()
    # Both, since events from before the key was set hold the id itself.
    stored = [*viewers, *(Pseudonyms(key).of(viewer) for viewer in viewers if key)]
    done = erasing.erase(connect(settings), stored, cluster=settings.clickhouse_cluster)
    console.print(f"erased {done.events:,} events and {done.rejects:,} rejected messages")
    if rebuild:
        refresh(full=True)
    else:
        console.print("the marts still know them until `retention refresh --full`")


app.command()(produce)
app.command()(report)
app.command()(insights)

FormatArgument = Annotated[str, typer.Argument(metavar="FORMAT", help="xapi, edx or jsonl.")]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The log; .gz is read as is.")]


@app.command(name="import")
def import_(name: FormatArgument, file: FileArgument) -> None:
    """Publish another player's log through the topic and wait until all is stored.

    Importing a file again changes nothing. Example: retention import xapi statements.json.gz
    """
    from producer.publisher import Publisher
    from retention_platform.importers.run import import_file
    from retention_platform.warehouse.client import connect

    settings = get_settings()
    client = connect(settings)
    with Publisher(settings) as publisher:
        summary = import_file(
            name, file, publisher, lambda sql, values: client.query(sql, parameters=dict(values)).result_rows, console
        )
    console.print(summary.table(file))
    if summary.stored < summary.events - summary.repeated:
        raise RetentionError(
            f"of {summary.events - summary.repeated:,} events {summary.stored:,} are stored: "
            "see `retention rejects`, or the log of ingest"
        )


@app.command()
def convert(name: FormatArgument, file: FileArgument) -> None:
    """Print a log as contract events, one JSON object a line; what cannot be used goes to stderr with its line."""
    from retention_platform.importers.run import convert_file

    convert_file(name, file, sys.stdout, sys.stderr)


@app.command()
def refresh(
    full: Annotated[bool, typer.Option("--full", help="Recompute everything from raw, not only what changed.")] = False,
) -> None:
    """Materialize the marts now, through the running Dagster."""
    from retention_platform.orchestration.launch import launch_job

    settings = get_settings()
    with console.status("Dagster is materializing the marts …"):
        launch_job(settings.dagster_url, "reconcile" if full else "marts", on_progress=lambda _: None)
    console.print("the marts are fresh")


@app.command()
def docs(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to put the page.")] = None,
) -> None:
    """Write dbt's documentation of every table, column and lineage as one HTML file. Needs no running stack.

    While the stack runs the same page is at DOCS_PORT (8082).
    """
    from retention_platform.docs_site import site

    path = output or get_settings().retention_home / "docs" / "index.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(site(), encoding="utf-8")
    except OSError as error:
        raise RetentionError(f"cannot write {path} ({error.strerror}): choose another with --output") from None
    typer.echo(str(path))


@app.command()
def sql(query: Annotated[str, typer.Argument(help="Any SQL that ClickHouse understands.")]) -> None:
    """Run SQL on the warehouse and print the answer.

    Example: retention sql "select video_id, views, completion_rate from marts.engagement_summary"
    """
    from retention_platform.warehouse.client import connect

    named = re.search(r"\bformat\s+\w+\s*;?\s*$", query, re.IGNORECASE)
    answer = connect(get_settings()).raw_query(query, fmt=None if named else "PrettyCompactMonoBlock")
    typer.echo(bytes(answer).decode("utf-8", "replace").rstrip("\n"))


def main() -> None:
    """The entry point: a user's error is one line on stderr and exit code 1."""
    # The driver logs a traceback of what it also raises.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    try:
        app()
    except RetentionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        if type(error).__module__.startswith("clickhouse_connect."):
            print(f"error: ClickHouse: {str(error).strip().splitlines()[0][:500]}", file=sys.stderr)
            raise SystemExit(1) from None
        raise


if __name__ == "__main__":
    main()
