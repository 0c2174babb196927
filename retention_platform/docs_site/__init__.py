"""dbt's documentation of the project as one page: every model, source and column, its SQL, tests and lineage.

Owns the page's making, from dbt's manifest alone. dbt would ask a warehouse for names and types of columns; here they
are those the project declares, which contracts and a test keep equal to the tables'. So the page can be made
anywhere, and depends on nothing but the project. `__main__` serves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retention_platform.orchestration.dbt_project import prepare_manifest
from retention_platform.settings import DBT_PROJECT_DIR

#: What dbt's page has in the places of the two documents.
_MANIFEST, _CATALOG = '"MANIFEST.JSON INLINE DATA"', '"CATALOG.JSON INLINE DATA"'


def site(project_dir: Path = DBT_PROJECT_DIR) -> str:
    """The page of the project as it is now, HTML. Raises RetentionError when the project cannot be parsed."""
    from dbt.task.docs import DOCS_INDEX_FILE_PATH

    manifest = json.loads(prepare_manifest(project_dir).read_text(encoding="utf-8"))
    page = Path(DOCS_INDEX_FILE_PATH).read_text(encoding="utf-8")
    return page.replace(_MANIFEST, _inline(manifest)).replace(_CATALOG, _inline(catalog_of(manifest)))


def _inline(document: Mapping[str, Any]) -> str:
    """JSON that cannot end the script it stands in."""
    return json.dumps(document).replace("</", "<\\/")


def catalog_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """dbt's catalog: the tables, columns and types that the manifest's models and sources declare."""
    nodes = {key: node for key, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    return {
        "metadata": manifest["metadata"],
        "nodes": {key: _entry(key, node, node["config"]["materialized"]) for key, node in nodes.items()},
        "sources": {key: _entry(key, source, "table") for key, source in manifest["sources"].items()},
        "errors": None,
    }


def _entry(key: str, node: Mapping[str, Any], stored_as: str) -> dict[str, Any]:
    return {
        "unique_id": key,
        "metadata": {
            "type": stored_as,
            "database": "",
            "schema": node["schema"],
            "name": node["name"],
            "comment": node["description"],
            "owner": None,
        },
        "columns": {
            name: {"name": name, "type": column["data_type"], "index": number, "comment": column["description"]}
            for number, (name, column) in enumerate(node["columns"].items(), 1)
        },
        "stats": {},
    }
