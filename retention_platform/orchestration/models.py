"""The dbt project as Dagster assets, its tests as their checks. Importing this prepares dbt's manifest when it must."""

# No `from __future__ import annotations`: Dagster looks at the annotations of decorated functions.

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_dbt import DbtProject, dbt_assets
from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

from retention_platform.errors import ServiceError
from retention_platform.orchestration.dbt_project import TARGET, prepare_manifest
from retention_platform.orchestration.dbt_run import DbtError, stream
from retention_platform.orchestration.failures import told_in_one_line
from retention_platform.orchestration.previews import preview
from retention_platform.orchestration.raw_mark import read_mark
from retention_platform.orchestration.refresh import MARK_TAG
from retention_platform.orchestration.resources import Warehouse
from retention_platform.orchestration.translator import Translator
from retention_platform.settings import DBT_PROJECT_DIR

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from retention_platform.settings import Settings

#: The pool of everything that writes what dbt owns; dagster.yaml lets one run at a time have it.
DBT_POOL = "dbt"
#: How often a build is tried again in the same run, and after how many seconds, when all that failed may pass.
MAX_RETRIES = 2
RETRY_SECONDS = 5.0

MANIFEST_PATH = prepare_manifest()
PROJECT = DbtProject(DBT_PROJECT_DIR, target_path=TARGET)
TRANSLATOR = Translator()


#: Marts whose rows are not counted after every build: one reads all of raw, the others have none until they are called.
UNCOUNTED = {"data_quality", "retention_curve_of", "engagement_of"}


class Build(dg.Config):
    """How to build; in the launchpad."""

    full_refresh: bool = False


def build_arguments(*, full_refresh: bool, selection: list[str]) -> list[str]:
    """The dbt command: models and data tests; unit tests need no data and run with the test suite."""
    return [
        "build",
        *("--exclude-resource-type", "unit_test"),
        *(["--full-refresh"] if full_refresh else []),
        *selection,
    ]


def keeps_all(settings: "Settings") -> bool:
    """Whether raw still has all that was ever stored, so that rebuilding from it loses nothing."""
    return settings.raw_ttl_days == 0


@dbt_assets(
    manifest=MANIFEST_PATH,
    project=PROJECT,
    dagster_dbt_translator=TRANSLATOR,
    name="dbt_models",
    pool=DBT_POOL,
)
def dbt_models(context: dg.AssetExecutionContext, config: Build, warehouse: Warehouse) -> Iterator[Any]:
    """Build the selected models and run their tests."""
    selected = get_updated_cli_invocation_params_for_context(context.op_execution_context, {}, TRANSLATOR)
    settings = warehouse.settings()
    full_refresh = config.full_refresh and keeps_all(settings)
    if config.full_refresh and not full_refresh:
        context.log.warning(
            f"raw events are dropped after {settings.raw_ttl_days} days (RAW_TTL_DAYS): rebuilding from raw would drop "
            "what the marts know of older ones, so this refresh is incremental"
        )
    arguments = build_arguments(full_refresh=full_refresh, selection=list(selected.selection_args))
    if selected.indirect_selection:
        arguments += ["--indirect-selection", selected.indirect_selection]
    try:
        with warehouse.client() as client:
            if not context.is_subset:
                note_mark(context, client)
            for event in stream(arguments, settings, working_folder(settings)):
                message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
                for made in message.to_default_asset_events(selected.manifest, TRANSLATOR, context, project=PROJECT):
                    yield with_row_count(made, event, client)
    except (DbtError, ServiceError) as error:
        passes = error.transient if isinstance(error, DbtError) else True
        if passes and context.op_execution_context.retry_number < MAX_RETRIES:
            context.log.warning(f"{error}; trying again in {RETRY_SECONDS:.0f} s")
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=RETRY_SECONDS) from error
        with told_in_one_line():
            raise


def working_folder(settings: "Settings") -> Path:
    """Where the last build's compiled SQL and dbt.log are kept; the pool lets no two builds meet in it."""
    return settings.retention_home / "dagster" / "dbt"


def note_mark(context: dg.AssetExecutionContext, client: "Client") -> None:
    """Write on the run what is stored before dbt reads it: the least that the marts will know."""
    mark = read_mark(client)
    if mark is not None:
        context.instance.add_run_tags(context.run.run_id, {MARK_TAG: mark.encode()})


def with_row_count(made: Any, event: Mapping[str, Any], client: "Client") -> Any:
    """A model's output with its number of rows, of a mart that is a view counted; and a preview of a mart."""
    if not isinstance(made, dg.Output):
        return made
    relation = event["data"]["node_info"]["node_relation"]
    seen = preview(client, relation["alias"]) if relation["schema"] == "marts" else {}
    rows = client.query(
        "select total_rows from system.tables where database = {schema:String} and name = {name:String}",
        parameters={"schema": relation["schema"], "name": relation["alias"]},
    ).result_rows
    count = rows[0][0] if rows else None
    if count is None and relation["schema"] == "marts" and relation["alias"] not in UNCOUNTED:
        count = client.query(f"select count() from marts.`{relation['alias']}`").result_rows[0][0]
    counted = {} if count is None else {"dagster/row_count": int(count)}
    return made.with_metadata({**made.metadata, **seen, **counted})
