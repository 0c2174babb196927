"""`retention status`: of each part whether it is up, how fresh, how far behind. Asks the parts, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
from rich.table import Table

from retention_platform.embedded.stack import Home
from retention_platform.embedded.supervisor import Supervisor
from retention_platform.errors import RetentionError
from retention_platform.ingest.broker import group_lag
from retention_platform.ingest.metrics import read_figures
from retention_platform.settings import Settings
from retention_platform.warehouse.client import connect, first_line


@dataclass(frozen=True)
class Part:
    """One line of the status: a part, whether it is up, and what there is to say of it."""

    name: str
    up: bool
    detail: str


def gather(settings: Settings) -> list[Part]:
    """Ask every part, each for a second or two at most."""
    processes = Supervisor(Home(settings.retention_home)).states()
    return [
        _ask("broker", lambda: _broker(settings)),
        _ask("clickhouse", lambda: _clickhouse(settings)),
        _ask("ingest", lambda: _ingest(settings, processes)),
        # Where no process manager is, nobody can tell: it listens nowhere.
        *([_ask("producer", lambda: _process("producer", processes))] if processes else []),
        _ask("dagster", lambda: _dagster(settings)),
        _ask("api", lambda: _api(settings)),
        _ask("docs", lambda: _docs(settings)),
        _ask("dashboard", lambda: _dashboard(settings)),
        _ask("marts", lambda: _marts(settings)),
    ]


def table(parts: list[Part]) -> Table:
    """The parts as a table for people."""
    shown = Table(show_edge=False, box=None, pad_edge=False)
    for title in ("part", "", "detail"):
        shown.add_column(title, overflow="fold")
    for part in parts:
        shown.add_row(part.name, "[green]up[/green]" if part.up else "[red]down[/red]", part.detail)
    return shown


def as_dicts(parts: list[Part]) -> list[dict[str, Any]]:
    """The parts as plain values for JSON."""
    return [asdict(part) for part in parts]


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, as people say it: ``3 s``, ``5 min``, ``2 h``, ``4 d``."""
    seconds = max(0, int((now - moment) / timedelta(seconds=1)))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _ask(name: str, question: Callable[[], tuple[bool, str]]) -> Part:
    try:
        up, detail = question()
    except RetentionError as error:
        up, detail = False, str(error)
    except httpx.HTTPError as error:
        up, detail = False, f"does not answer ({type(error).__name__})"
    except Exception as error:  # a part that answers nonsense is down, and the others are still told
        up, detail = False, first_line(error)
    return Part(name, up, detail)


def _process(name: str, processes: dict[str, dict[str, Any]]) -> tuple[bool, str]:
    info = processes.get(name)
    if info is None:
        return False, "not part of a running stack here"
    return info["statename"] == "RUNNING", str(info["description"])


def _broker(settings: Settings) -> tuple[bool, str]:
    places = group_lag(settings, timeout=2.0)
    written = sum(place.end for place in places)
    return True, f"{settings.kafka_bootstrap_servers}; {written:,} messages in {len(places)} partitions"


def _ingest(settings: Settings, processes: dict[str, dict[str, Any]]) -> tuple[bool, str]:
    behind = sum(place.lag for place in group_lag(settings, timeout=2.0))
    detail = f"{behind:,} messages behind"
    if settings.ingest_metrics_port:
        detail += f"; {_ingest_figures(settings)}"
    if "ingest" not in processes:
        return behind == 0, f"{detail}; runs elsewhere, if it does"
    running, words = _process("ingest", processes)
    return running, f"{detail}; {words}"


def _ingest_figures(settings: Settings) -> str:
    url = f"http://{settings.ingest_metrics_host}:{settings.ingest_metrics_port}/metrics"
    try:
        return str(read_figures(httpx.get(url, timeout=2).raise_for_status().text))
    except httpx.HTTPError as error:
        return f"no figures at {url} ({type(error).__name__})"


def _clickhouse(settings: Settings) -> tuple[bool, str]:
    client = connect(settings, timeout=2.0)
    count, newest, rejected = client.query(
        "select (select count() from raw.playback_events), (select max(ingested_at) from raw.playback_events), "
        "(select count() from raw.rejected_events)"
    ).result_rows[0]
    where = f"{settings.clickhouse_host}:{settings.clickhouse_port}"
    fresh = f", newest stored {ago(_utc(newest), datetime.now(timezone.utc))}" if count else ""
    return True, f"{where}; {count:,} events{fresh}; {rejected:,} rejected"


def _docs(settings: Settings) -> tuple[bool, str]:
    url = f"http://{settings.docs_host}:{settings.docs_port}"
    answer = httpx.get(f"{url}/health", timeout=2)
    return answer.is_success, url if answer.is_success else answer.text.strip()[:200]


def _marts(settings: Settings) -> tuple[bool, str]:
    client = connect(settings, timeout=2.0)
    views, videos = client.query("select sum(views), count() from marts.engagement_summary").result_rows[0]
    refreshed = client.query(
        "select max(metadata_modification_time) from system.tables where database = 'marts' and engine not like '%View'"
    ).result_rows[0][0]
    return True, f"{views:,} views of {videos} videos; refreshed {ago(_utc(refreshed), datetime.now(timezone.utc))}"


def _dagster(settings: Settings) -> tuple[bool, str]:
    base = settings.dagster_url
    query = "{ instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } } }"
    answer = httpx.post(f"{base}/graphql", json={"query": query}, timeout=3.0).json()
    statuses = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    ill = [status["daemonType"].lower() for status in statuses if status["required"] and not status["healthy"]]
    if ill:
        return False, f"{base}; the UI answers, these daemons do not: {', '.join(ill)}"
    return True, f"{base}; UI and daemons healthy"


def _api(settings: Settings) -> tuple[bool, str]:
    base = f"http://{settings.api_host}:{settings.api_port}"
    answer = httpx.get(f"{base}/health", timeout=3.0)
    return answer.is_success, f"{base}; {'healthy' if answer.is_success else f'answers {answer.status_code}'}"


def _dashboard(settings: Settings) -> tuple[bool, str]:
    base = f"http://{settings.dashboard_host}:{settings.dashboard_port}"
    answer = httpx.get(f"{base}/_stcore/health", timeout=3.0)
    return answer.is_success, base


def _utc(moment: datetime) -> datetime:
    """The driver gives naive UTC for columns without a zone of their own."""
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
