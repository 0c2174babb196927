"""How dbt nodes look in Dagster: what dagster-dbt makes of them, and ours on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

OWNERS = ["team:retention"]


class Translator(DagsterDbtTranslator):
    """Adds owners and what a model is stored as; keys, groups, columns and checks come from the dbt project."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """The node's asset."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        stored_as = self.get_resource_props(manifest, unique_id)["config"].get("materialized")
        return spec.merge_attributes(owners=OWNERS, kinds={stored_as} if stored_as else set())
