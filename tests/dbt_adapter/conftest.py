"""dbt's public adapter suite (`dbt-tests-adapter`) and more of its kind: dbt-clickhouse on the embedded server.

By default a core of it runs: every materialization, strategy and command at least once. `DBT_ADAPTER_SUITE=all` runs
the folder `whole` too. `DBT_ADAPTER_PORT` points all of it at a server that runs already, a real one too.

What of the public suite is not here is so because dbt-clickhouse or ClickHouse's SQL is other than the suite supposes,
whatever the server: several statements at once, `text` and `md5` as Postgres has them, primary keys that are enforced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pandas  # noqa: F401  # dbt imports it lazily from its threads, which has been seen to crash the interpreter
import pytest

# The public suite's fixtures; a plugin of a folder cannot be loaded any other way.
from dbt.tests.fixtures.project import *  # noqa: F403

from tests.conftest import unique

collect_ignore = [] if os.environ.get("DBT_ADAPTER_SUITE") == "all" else ["whole"]


@pytest.fixture(scope="class")
def dbt_profile_target(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The profile of every project."""
    chosen = os.environ.get("DBT_ADAPTER_PORT")
    return {
        "type": "clickhouse",
        "driver": "http",
        "host": "127.0.0.1",
        "port": int(chosen) if chosen else request.getfixturevalue("clickhouse_port"),
        "user": "default",
        "password": "",
        "threads": 4,
        "check_exchange": False,
        "use_lw_deletes": True,
        "custom_settings": {"input_format_skip_unknown_fields": 1},
    }


@pytest.fixture(scope="class")
def unique_schema() -> str:
    """A database of the class's own; in lower case, as dbt's cache has it."""
    return unique("dbt").replace("-", "_")


@pytest.fixture(scope="class")
def logs_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where dbt logs to: not the folder `logs` of the repository, as the public suite has it."""
    folder = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBT_LOG_PATH", str(folder))
        yield str(folder)
