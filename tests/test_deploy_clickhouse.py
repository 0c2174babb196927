"""The configuration of a deployed server, loaded by the engine itself: its users, grants, limits and quotas."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from retention_platform.embedded.clickhouse.users import BI_LIMITS

DEPLOY = Path(__file__).parents[1] / "deploy" / "clickhouse"
#: What the server's own users.xml has, as far as ours is merged into it.
_SERVERS_USERS = """
<clickhouse>
    <profiles><default/></profiles>
    <users><default>
        <password/><profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks>
        <access_management>1</access_management>
    </default></users>
    <quotas><default/></quotas>
</clickhouse>
"""
#: The engine keeps its configuration for as long as its process lives.
_ASK = """
import json, sys, chdb
engine = chdb.connect(sys.argv[1])
print(json.dumps([engine.query(sql, "TSV").bytes().decode() for sql in sys.argv[2:]]))
"""


def asked(folder: Path, *queries: str, **environment: str) -> list[str]:
    """What the engine with these users answers."""
    (folder / "users.xml").write_text(_SERVERS_USERS)
    shutil.copytree(DEPLOY / "users.d", folder / "users.d", dirs_exist_ok=True)
    users = f"<users_config>{folder}/users.xml</users_config>"
    (folder / "config.xml").write_text(f"<clickhouse>{users}</clickhouse>")
    target = f"{folder}/data?config-file={folder}/config.xml"
    command = [sys.executable, "-c", _ASK, target, *queries]
    variables = {**os.environ, **environment}
    done = subprocess.run(command, env=variables, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.fixture
def passwords() -> dict[str, str]:
    return {f"CLICKHOUSE_{user}_PASSWORD": "secret" for user in ("INGEST", "DBT", "API", "BI")}


def test_the_engine_takes_the_users_and_each_may_what_is_its_own(tmp_path: Path, passwords: dict[str, str]) -> None:
    users, bi, api, ingest, dbt = asked(
        tmp_path,
        "select name from system.users order by name",
        *(f"show grants for {user}" for user in ("bi", "api", "ingest", "dbt")),
        **passwords,
    )
    assert users.split() == ["api", "bi", "dbt", "default", "ingest"]
    assert bi == "GRANT SELECT ON marts.* TO bi\n"
    assert {line.split(" ON ")[0] for line in api.splitlines()} == {"GRANT SELECT"}
    assert "marts" not in ingest and "GRANT SELECT, INSERT ON raw.* TO ingest" in ingest
    probed = next(line for line in ingest.splitlines() if " ON probe_*.*" in line)
    assert "CREATE DATABASE" in probed and "DROP DATABASE" in probed and "CREATE VIEW" in probed
    # What is put aside is taken out of the raw tables again, where a view further down broke.
    assert {line for line in ingest.splitlines() if "ALTER DELETE" in line} == {
        f"GRANT ALTER DELETE ON {database}.{table} TO ingest"
        for database in ("raw", "raw_local")
        for table in ("playback_events", "videos")
    }
    assert "GRANT SELECT ON raw.* TO dbt" in dbt and "USER" not in dbt and "ROLE" not in dbt
    assert "CREATE ARBITRARY TEMPORARY TABLE" in dbt


def test_the_engine_takes_the_servers_settings(tmp_path: Path, passwords: dict[str, str]) -> None:
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d" / "retention.xml").write_text((DEPLOY / "config.d" / "retention.xml").read_text())
    kept, sizes = asked(
        tmp_path,
        "select keep_free_space from system.disks where name = 'default'",
        "select value from system.server_settings where name = 'mark_cache_size'",
        **passwords,
    )
    assert (kept, sizes) == (f"{1024**3}\n", f"{256 * 1024**2}\n")


def test_limits_of_readers_cannot_be_set_beyond_those_of_the_laptop(tmp_path: Path, passwords: dict[str, str]) -> None:
    rows, quota = asked(
        tmp_path,
        "select profile_name, setting_name, value, ifNull(min, ''), ifNull(max, '') "
        "from system.settings_profile_elements",
        "select max_queries, max_execution_time from system.quota_limits where quota_name = 'retention_bi'",
        **passwords,
    )
    found = {tuple(row[:2]): row[2:] for row in (line.split("\t") for line in rows.splitlines())}
    for setting, limit in BI_LIMITS.items():
        assert found["retention_bi", setting] == [str(limit), "1", str(limit)]
        assert found["retention_api", setting][1] == "1", "0 would be no limit"
    assert found["retention_bi", "readonly"][0] == found["retention_api", "readonly"][0] == "2"
    assert [float(figure) > 0 for figure in quota.split()] == [True, True]


def test_no_password_is_in_a_file_and_configuration_is_well_formed() -> None:
    for file in DEPLOY.rglob("*.xml"):
        root = ET.parse(file).getroot()
        assert root.tag == "clickhouse"
        for password in root.iter("password"):
            assert not password.text and password.get("from_env", "").startswith("CLICKHOUSE_")
