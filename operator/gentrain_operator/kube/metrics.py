"""What Prometheus is told of the operator and of every job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gentrain_operator.kube.resource import Object

WRITES = ("create", "update", "patch", "delete")


class Metrics:
    """The operator's own registry; nothing global, so that two operators in one test process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "gentrain_reconcile_seconds", "Time of one reconcile.", ["outcome"], registry=self.registry, buckets=(0.001, 0.01, 0.1, 1, 10)
        )
        self.requests = Counter(
            "gentrain_api_requests_total",
            "Requests to the API server; code 0: unreachable.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram("gentrain_api_request_seconds", "Time until the API server answered.", registry=self.registry)

    def request(self, verb: str, resource: str, status: int, seconds: float) -> None:
        """An Observer for kube.client.Client."""
        self.requests.labels(verb, resource, status).inc()
        if verb != "watch":
            self.request_seconds.observe(seconds)

    def reconciled(self, seconds: float, succeeded: bool) -> None:
        self.reconcile_seconds.labels("success" if succeeded else "failure").observe(seconds)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when Prometheus asks."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def gauges(self, name: str, text: str, label: str, values: Mapping[str, Callable[[], float]]) -> None:
        """The same for each value of a label."""
        family = Gauge(name, text, [label], registry=self.registry)
        for value, read in values.items():
            family.labels(value).set_function(read)

    def jobs(self, objects: Callable[[], Iterable[Object]]) -> None:
        """Publishes step, loss, cost, GPU time and conditions of every job in a store."""
        self.registry.register(_Jobs(objects))

    def text(self, names: Sequence[str] = ()) -> bytes:
        """All of it, or the series of these names: what every Prometheus client takes as `name[]`. Those of jobs have none here."""
        return generate_latest(self.registry.restricted_registry(names) if names else self.registry)


class _Jobs(Collector):
    def __init__(self, objects: Callable[[], Iterable[Object]]) -> None:
        self._objects = objects

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # without this the registry would collect once just to learn the names

    def collect(self) -> Iterator[GaugeMetricFamily]:
        step = GaugeMetricFamily("gentrain_job_step", "Step a job has reached.", labels=["namespace", "job"])
        metric = GaugeMetricFamily("gentrain_job_metric", "Latest training metrics.", labels=["namespace", "job", "name"])
        cost = GaugeMetricFamily("gentrain_job_cost_usd", "Cost of a job so far.", labels=["namespace", "job"])
        gpu = GaugeMetricFamily("gentrain_job_gpu_seconds", "GPU time of a job so far.", labels=["namespace", "job"])
        condition = GaugeMetricFamily("gentrain_job_condition", "1 when the condition is True.", labels=["namespace", "job", "type"])
        for obj in self._objects():
            labels, status = [obj["metadata"]["namespace"], obj["metadata"]["name"]], obj.get("status") or {}
            progress, spent = status.get("progress") or {}, status.get("cost") or {}
            _add(step, labels, progress.get("step"))
            _add(cost, labels, spent.get("usd"))
            _add(gpu, labels, spent.get("gpuHours"), 3600)
            for one in progress.get("metrics") or ():
                _add(metric, [*labels, one["name"]], one["value"])
            for one in status.get("conditions") or ():
                condition.add_metric([*labels, one["type"]], 1.0 if one["status"] == "True" else 0.0)
        yield from (step, metric, cost, gpu, condition)


def _add(family: GaugeMetricFamily, labels: list[str], value: Any, scale: float = 1.0) -> None:
    """Adds a value that may be a number, a number as text, or "unknown"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return
    family.add_metric(labels, number * scale)
