"""`retention insights`: what happens in a video, why people leave, and what to change, on the terminal."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from retention_platform.settings import get_settings

console = Console(stderr=True)


def insights(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="Its id.")],
    demo: Annotated[bool, typer.Option("--demo", help="By rules, also where OPENAI_API_KEY is set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the facts.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Store them, so that API, dashboard and reports show them.")
    ] = False,
) -> None:
    """Say what happens in a video, where and why people leave, what to change, and how to know that it helped.

    By rules, or by a language model where OPENAI_API_KEY is set; every figure is from the marts of now.
    """
    from retention_platform.insights.analyse import Analyst, cost_of, read_facts
    from retention_platform.insights.store import save
    from retention_platform.report.insights import document
    from retention_platform.report.make import Format, written
    from retention_platform.report.queries import asking
    from retention_platform.report.words import plural
    from retention_platform.warehouse.client import connect

    settings = get_settings()
    client = connect(settings)
    try:
        made = Analyst(settings, demo=demo).insights(video, read_facts(asking(client), video))
        if keep:
            save(client, made)
    finally:
        client.close()
    typer.echo(made.model_dump_json(indent=2) if as_json else written(document(made), Format.MARKDOWN), nl=as_json)
    if made.note:
        console.print(made.note, highlight=False, markup=False, soft_wrap=True)
    if made.usage.calls:
        cost = cost_of(made.usage, settings)
        costing = "" if cost is None else f", cost {cost:.4f}"
        tokens = f"{made.usage.input_tokens:,} tokens read, {made.usage.output_tokens:,} written"
        console.print(f"{plural(made.usage.calls, 'answer')}, {tokens}{costing}", highlight=False)
