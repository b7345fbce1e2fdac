"""The headline numbers of a report: what was trained, on what, how far, how well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from trainjobs.api.metrics import METRICS
from trainjobs.report.marks import BEGINS, trained
from trainjobs.report.planned import lines
from trainjobs.run.folder import Row, Run
from trainjobs.run.numbers import duration, number, short, size


class Tile(NamedTuple):
    label: str
    value: str
    remark: str = ""


def tiles(run: Run, rows: list[Row], events: list[Row]) -> Iterator[Tile]:
    """Results first, then what they were got from. What a run has not told is left out."""
    progress = run.progress()
    total = progress.get("totalSteps")
    yield Tile("steps", short(progress.get("step") or 0), f"of {total}" if total else "")
    for metric in METRICS:
        values = [value for row in rows if (value := number(row.get(metric.name))) is not None]
        if metric.tile and values:
            yield Tile(metric.tile, short(values[-1]), f"from {short(values[0])}" if len(values) > 1 else "")
    rate = progress.get("throughput")
    if isinstance(rate, Mapping) and rate.get("value") is not None:
        yield Tile("throughput", short(rate["value"]), str(rate.get("unit", "")))
    if (seconds := trained(events, rows)) is not None:
        attempts = sum(1 for event in events if event.get("event") in BEGINS)
        yield Tile("training time", duration(seconds), f"{attempts} attempt{'s' if attempts != 1 else ''}")
    yield from material(run.spec(), progress)
    if memory := number(progress.get("memoryBytes")):
        yield Tile("memory", size(memory), "peak of a worker")
    for line in lines(run):
        yield Tile(f"planned {line.name}", line.foreseen, f"{line.measured} measured" + (f": {line.missed}" if line.missed else ""))


def material(spec: Mapping[str, Any], progress: Row) -> Iterator[Tile]:
    """Data, network, seed, machine and batch."""
    training, heldout = number(progress.get("trainingSamples")), number(progress.get("heldoutSamples"))
    if training is not None:
        yield Tile("training samples", f"{training:,.0f}", f"and {heldout:,.0f} held out" if heldout else "none held out")
    if (seen := number(progress.get("samples"))) is not None:
        times = seen / training if training else 0.0
        yield Tile(
            "samples seen",
            f"{seen:,.0f}",
            f"each {short(float(f'{times:.2g}'))} times" if times >= 1 else f"{times:.0%} of them" if training else "",
        )
    networks = progress.get("parameters")
    counts = (
        {str(name): found for name, raw in networks.items() if (found := number(raw)) is not None} if isinstance(networks, Mapping) else {}
    )
    if counts:
        each = ", ".join(f"{name} {many(count)}" for name, count in counts.items())
        yield Tile("parameters", many(sum(counts.values())), each if len(counts) > 1 else next(iter(counts)))
    settings = spec.get("training")
    settings = settings if isinstance(settings, Mapping) else {}
    workers = number(progress.get("workers"))
    batch = settings.get("batch")
    if isinstance(batch, Mapping) and (whole := number(batch.get("global"))) is not None:
        micro = number(batch.get("micro"))
        part = f"{micro:.0f} at a time" if micro else f"{whole / workers:.0f} a worker" if workers and workers > 1 else ""
        yield Tile("batch", f"{whole:,.0f}", part)
    if progress.get("device") is not None:
        group = f"{workers:.0f} worker{'s' if workers != 1 else ''}" if workers else ""
        stage = f"ZeRO stage {progress['stage']}" if progress.get("stage") is not None else ""
        yield Tile("device", str(progress["device"]), ", ".join(filter(None, (group, stage))))
    if (seed := settings.get("seed")) is not None:
        yield Tile("seed", str(seed), str(settings.get("precision") or ""))


def many(count: float) -> str:
    """Parameters as people say them: 980, 84,210, 1.23 M, 6.9 B."""
    for unit, of in (("B", 1e9), ("M", 1e6)):
        if count >= of:
            return f"{short(float(f'{count / of:.3g}'))} {unit}"
    return f"{count:,.0f}"
