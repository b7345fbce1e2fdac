"""Alerts and dashboards ask for what the operator exports: every metric and every label in them is one that a real operator shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gentrain_operator.kube.client import Configuration
from gentrain_operator.main import Operator, Settings
from tests.chart.helm import CHART, objects

ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "files" / "dashboards").glob("*.json"))}
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
# What Prometheus adds to everything it scrapes.
ADDED = {"instance", "namespace"}
JOB = {
    "metadata": {"namespace": "team", "name": "job", "resourceVersion": "1"},
    "status": {
        "progress": {"step": 3, "metrics": [{"name": "loss", "value": "0.5"}]},
        "cost": {"usd": "1.50", "gpuHours": "2.00"},
        "conditions": [{"type": "Running", "status": "True"}],
    },
}


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Labels by metric, from the text that an operator with a job in its store serves."""
    operator = Operator(Configuration(), Settings("image", "home", port=0))
    operator.probes._server.server_close()
    operator.stores.jobs.put(JOB)
    operator.metrics.request("get", "rayjobs", 200, 0.1)
    operator.metrics.reconciled(0.1, True)
    shown = operator.metrics.text().decode()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", shown, re.MULTILINE))
    names = {name + suffix for name, kind in kinds.items() if not name.endswith("_created") for suffix in SUFFIXES[kind]}
    labels: dict[str, set[str]] = {name: set() for name in names}
    for name, inside in re.findall(r"^(\w+)(?:\{(.*)\})? ", shown, re.MULTILINE):
        if name in names:
            labels[name] |= set(re.findall(r"(\w+)=\"", inside))
    return labels


def queries() -> Iterator[tuple[str, str]]:
    """Where it stands, and the query."""
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{name}: {variable['name']}", variable["query"]["query"]


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=[where for where, _ in queries()])
def test_a_query_names_what_is_exported(exported: dict[str, set[str]], where: str, query: str) -> None:
    names = re.findall(r"\bgentrain_\w+", query)
    assert names
    assert set(names) <= set(exported)
    for name, inside in re.findall(r"\b(gentrain_\w+)\{(.*?)\}", query):
        assert set(re.findall(r"(\w+)=?[=!~]", inside)) <= exported[name] | ADDED, name
    known = set.union(*(exported[name] for name in names)) | ADDED
    for grouped in re.findall(r"\b(?:by|on) \((.*?)\)", query):
        assert set(grouped.split(", ")) <= known
    assert query.count("(") == query.count(")")


def test_alerts_say_what_and_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        # Only labels that the expression keeps can be shown.
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            kept = re.findall(r"by \((.*?)\)", rule["expr"])
            assert not kept or label in kept[0].split(", "), rule["alert"]


def test_dashboards_import_anywhere() -> None:
    """No data source of ours, no two panels of one id or place, and every variable that is used exists."""
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS) == 2
    for board in DASHBOARDS.values():
        variables = {one["name"] for one in board["templating"]["list"]}
        assert set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) <= variables
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken
            assert max(x for x, _ in cells) < 24
            taken |= cells
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_the_chart_ships_them_unchanged() -> None:
    found: dict[tuple[str, str], Any] = objects("--set=metrics.rules.enabled=true,metrics.dashboards.enabled=true")
    assert found["PrometheusRule", "gentrain"]["spec"] == ALERTS
    for name, board in DASHBOARDS.items():
        configmap = found["ConfigMap", f"gentrain-dashboard-{name}"]
        assert configmap["metadata"]["labels"]["grafana_dashboard"] == "1"
        (text,) = configmap["data"].values()
        assert json.loads(text) == board
