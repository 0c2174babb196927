"""dbt's documentation as a page: complete, made without a warehouse, served, and made anew when the project changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from dbt.task.docs import DOCS_INDEX_FILE_PATH
from starlette.testclient import TestClient

from retention_platform.docs_site import site
from retention_platform.docs_site.__main__ import create_app
from retention_platform.orchestration.dbt_project import prepare_manifest
from retention_platform.settings import DBT_PROJECT_DIR


def retention(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "retention_platform.cli", *arguments],
        env={**os.environ, "CLICKHOUSE_PORT": "1"},  # nothing answers there
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def documents(page: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the catalogue that stand in a page."""
    found = re.search(r"var n=\{manifest:(?=\{)", page)
    assert found, "the manifest is not where dbt's page looks for it"
    decoder = json.JSONDecoder()
    manifest, end = decoder.raw_decode(page, found.end())
    assert page[end:].startswith(",catalog:{")
    catalog, _ = decoder.raw_decode(page, end + len(",catalog:"))
    return manifest, catalog


def test_the_page_holds_every_model_source_and_column_and_the_lineage() -> None:
    page = site()
    manifest, catalog = documents(page)
    expected = json.loads(prepare_manifest().read_text(encoding="utf-8"))
    assert manifest["parent_map"] == expected["parent_map"]
    entries = {**catalog["nodes"], **catalog["sources"]}
    nodes = {**expected["nodes"], **expected["sources"]}
    assert entries.keys() == {key for key in nodes if key.startswith(("model.", "source."))}
    for key, entry in entries.items():
        assert list(entry["columns"]) == list(nodes[key]["columns"]), key
        assert all(column["type"] for column in entry["columns"].values()), key
    # text of the project cannot end the script that it stands in
    assert page.count("</script>") == Path(DOCS_INDEX_FILE_PATH).read_text(encoding="utf-8").count("</script>")


def test_the_page_is_served_sends_nothing_elsewhere_and_follows_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(DBT_PROJECT_DIR, project, ignore=shutil.ignore_patterns("logs"))
    client = TestClient(create_app(project))
    first = client.get("/")
    assert first.status_code == 200 and first.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in first.headers["content-security-policy"]
    assert documents(first.text)[0]["metadata"]["project_name"] == "retention"
    assert client.get("/", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    assert client.get("/health").json() == {"status": "ok"}

    described = project / "models" / "marts" / "videos.yml"
    described.write_text(described.read_text("utf-8").replace("One row ", "One row </script> of many, "), "utf-8")
    again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 200
    assert "</script> of many" in documents(again.text)[0]["nodes"]["model.retention.videos"]["description"]

    (project / "models" / "marts" / "videos.sql").write_text("select * from {{ ref('no_such_model') }}", "utf-8")
    ill = client.get("/health")
    assert ill.status_code == 503 and "no_such_model" in ill.json()["reason"]
    assert client.get("/").status_code == 503


def test_a_taken_port_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "retention_platform.docs_site"],
            env={**os.environ, "DOCS_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port} (address already in use)")
    assert "DOCS_PORT" in done.stderr


def test_the_command_writes_the_page_or_says_why_not(tmp_path: Path) -> None:
    written = retention("docs", "--output", str(tmp_path / "a" / "index.html"))
    assert written.returncode == 0, written.stderr
    assert documents((tmp_path / "a" / "index.html").read_text("utf-8"))
    refused = retention("docs", "--output", str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: cannot write {tmp_path}") and refused.stderr.count("\n") == 1
