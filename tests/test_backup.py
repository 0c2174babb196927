"""The runbook's backup, restored into an empty folder, gives identical tables: its own SQL, run by the engine."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

from retention_platform.settings import PROJECT_ROOT
from retention_platform.warehouse.migrate import migrations
from tests.messages import EVENT, VIDEO

RUNBOOK = PROJECT_ROOT / "docs" / "runbooks" / "README.md"
#: What is done in a process of its own: the engine opens one folder a process. Statements come in, answers go out.
ENGINE = """
import json, sys
import chdb
connection = chdb.connect(sys.argv[1])
for statement in json.load(sys.stdin):
    answer = connection.query(statement, "TSV")
    print(json.dumps(str(answer)))
"""


def run(folder: Path, configuration: Path, statements: list[str]) -> list[str]:
    """Run statements in the engine on ``folder``; their answers as text."""
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, f"{folder}?config-file={configuration}"],
        input=json.dumps(statements),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_the_runbook(backups: Path) -> dict[str, str]:
    """Its two statements, by their first word, with this test's folder in place of the server's."""
    block = RUNBOOK.read_text(encoding="utf-8").split("## Restore")[1].split("```sql\n")[1].split("```")[0]
    statements = [one.strip().replace("/backups/", f"{backups}/") for one in block.split(";") if one.strip()]
    return {one.split()[0]: one for one in statements}


def test_what_the_runbook_backs_up_and_restores_is_identical(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    configuration = tmp_path / "config.xml"
    configuration.write_text(
        f"<clickhouse><backups><allowed_path>{backups}/</allowed_path></backups></clickhouse>", encoding="utf-8"
    )
    wanted = of_the_runbook(backups)
    messages = [
        ("playback_events", {**EVENT, "event_id": str(uuid.UUID(int=number)), "session_id": f"s{number % 9}"})
        for number in range(500)
    ]
    messages += [("videos", VIDEO), ("playback_events", {"nothing": "of the contract"})]
    rows = ", ".join(
        f"('log', '{topic}', 0, {offset}, now64(3), '', '{json.dumps(message)}')"
        for offset, (topic, message) in enumerate(messages)
    )
    schema = [statement for migration in migrations() for statement in migration.statements]
    tables = ["raw.playback_events", "raw.videos", "raw.rejected_events", "raw.deliveries", "marts.ai_insights"]
    contents = [f"select * from {table} order by all" for table in tables]
    contents.append("select database, name, engine from system.tables where database in ('raw', 'live') order by all")
    insight = "insert into marts.ai_insights (video_id, headline) values ('video-1', 'a headline')"

    before = run(
        tmp_path / "one", configuration, [*schema, f"insert into raw.inbox values {rows}", insight, *contents]
    )[-len(contents) :]
    assert before[0].count("\n") >= 499 and before[2] and before[4], "something to back up"
    run(tmp_path / "one", configuration, [wanted["backup"]])
    after = run(tmp_path / "two", configuration, [wanted["restore"], *contents])[1:]
    assert after == before

    # And the stream goes on in it: the views were restored too.
    more = f"insert into raw.inbox values ('log', 'playback_events', 1, 0, now64(3), '', '{json.dumps(EVENT)}')"
    count = "select count() from raw.playback_events"
    counted = run(tmp_path / "two", configuration, [count, more, count])
    assert int(counted[2]) == int(counted[0]) + 1

    # The topic is read again on top of it: what a reader finds is what was there, and nothing twice.
    read = [
        "select event_id, session_id, event_time, position_ms from raw.playback_events final order by all",
        "select distinct video_id, title, updated_at from raw.videos final order by all",
        "select topic, partition, offset, payload from raw.rejected_events final order by all",
    ]
    came = "select sum(messages) from raw.deliveries"
    told = run(tmp_path / "two", configuration, [came, *read, f"insert into raw.inbox values {rows}", came, *read])
    assert told[-len(read) :] == told[1 : 1 + len(read)] and all(told[1 : 1 + len(read)])
    assert int(told[-len(read) - 1]) == int(told[0]) + 500
