"""The Grafana dashboard and Prometheus's configuration, against the figures that the code really gives."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from retention_platform.api.metrics import Metrics as ApiMetrics
from retention_platform.ingest.metrics import Metrics as IngestMetrics
from retention_platform.settings import PROJECT_ROOT
from tests.test_deploy_compose import services

DASHBOARD = PROJECT_ROOT / "deploy" / "grafana" / "retention.json"
PROMETHEUS = PROJECT_ROOT / "deploy" / "prometheus" / "prometheus.yml"
#: What Prometheus stores of a metric, by its type.
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
#: Labels that Prometheus or the histogram adds.
ADDED = {"le", "job", "instance"}


def registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    return ApiMetrics()._registry, IngestMetrics().registry


def labels() -> dict[str, set[str]]:
    """Every series' name with its labels, over whoever gives it."""
    found: dict[str, set[str]] = {}
    for registry in registries():
        for metric in registry._collector_to_names:
            (family,) = list(metric.describe())  # type: ignore[attr-defined]
            for suffix in SUFFIXES[family.type]:
                found.setdefault(family.name + suffix, set()).update(getattr(metric, "_labelnames", ()))
    return found


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"])


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


def test_every_figure_that_is_shown_is_one_that_the_code_gives() -> None:
    known = labels()
    shown = set[str]()
    for expression in expressions():
        names = set(re.findall(r"\bretention_\w+", expression))
        assert names and names <= known.keys(), expression
        shown |= names
        used = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
        used |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~)", expression))
        assert used - ADDED <= set().union(*(known[name] for name in names)), expression
    # Freshness of what Dagster makes, lag, rejects and errors are what somebody is woken for.
    assert shown >= {
        *("retention_marts_lag_seconds", "retention_ingest_lag_messages", "retention_ingest_rejects_total"),
        *("retention_up", "retention_api_requests_total"),
    }


def test_panels_have_places_of_their_own_and_ask_the_chosen_source() -> None:
    taken = set[tuple[int, int]]()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${source}"}
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_prometheus_asks_services_where_they_listen() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    for name, variable in (("retention-ingest", "INGEST_METRICS_PORT"), ("retention-api", "API_PORT")):
        for place in jobs[name]["dns_sd_configs"]:
            for service in place["names"]:
                assert services()[service]["environment"][variable] == str(place["port"])
    (target,) = jobs["redpanda"]["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert port in services()[name]["expose"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_understands_its_configuration_and_every_expression(tmp_path: Any) -> None:
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions())]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    for command in (["check", "config", str(PROMETHEUS)], ["check", "rules", str(path)]):
        done = subprocess.run(["promtool", *command], env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
