"""What was foreseen of a job, beside what came of it. Pure.

`gtj plan` keeps what it said; `gtj run` and `gtj submit` write it into the job as an annotation, where the operator, `gtj status` and the
report find it. Only like is compared with like: of the ways that were planned the one with the run's ranks, ZeRO stage and micro-batch, and
memory only where the device's allocator tells it: on a CPU the process holds an interpreter and libraries beside what was computed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainjobs.api.job import Spec
from trainjobs.plan.batch import cut

ANNOTATION = "gentrain.dev/plan"
LIMIT, MOST = 16 * 1024, 16  # characters of the annotation, and ways in it
MEMORY = 0.15  # the worst that was seen between a sum and torch's allocator (docs/concepts/plan.md): a peak within it was foreseen


@dataclass(frozen=True)
class Forecast:
    """One way to run a job. `memory` in bytes of a rank; `seconds` of a step and `usd` of all steps from and to, None where not known."""

    nodes: str
    ranks: int
    stage: int
    micro: int
    memory: int
    seconds: tuple[float, float] | None = None
    usd: tuple[float, float] | None = None
    basis: str = ""


@dataclass(frozen=True)
class Actual:
    """What was measured; None where it was not. `done`: whether `usd` is of all steps."""

    memory: int | None = None
    seconds: float | None = None
    usd: float | None = None
    done: bool = False


@dataclass(frozen=True)
class Line:
    """`missed`: how it lies outside what was foreseen, "" where it does not."""

    name: str
    foreseen: str
    measured: str
    missed: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.foreseen} foreseen, {self.measured} measured" + (f": {self.missed}" if self.missed else "")


def text(found: Iterable[Forecast]) -> str:
    """As the annotation has it."""
    return json.dumps([asdict(one) for one in list(found)[:MOST]], separators=(",", ":"))


def read(annotation: object) -> list[Forecast]:
    """Of an annotation that anybody may have written: what is not as `text` writes it is left out."""
    if not isinstance(annotation, str) or len(annotation) > LIMIT:
        return []
    try:
        listed = json.loads(annotation)
    except (ValueError, RecursionError):
        return []
    return [one for raw in listed[:MOST] if (one := _of(raw)) is not None] if isinstance(listed, list) else []


def chosen(found: Iterable[Forecast], ranks: int, stage: int, micro: int, nodes: str = "") -> Forecast | None:
    """The way that the run goes, on nodes of that name where there are several."""
    same = [one for one in found if (one.ranks, one.stage, one.micro) == (ranks, stage, micro)]
    alone = same[0] if len(same) == 1 or (same and not nodes) else None
    return next((one for one in same if one.nodes == nodes), alone)


def way(annotation: object, spec: Spec, workers: int, stage: int, nodes: str = "") -> Forecast | None:
    """Of what an annotation holds the way that so many workers go; None without one, and of a batch that they cannot share."""
    found, ranks = read(annotation), workers * spec.compute.each
    if not found or ranks < 1 or spec.training.batch.global_ % ranks:
        return None
    micro = cut(spec.training.batch, ranks, most=spec.compute.worker_range[1] * spec.compute.each).micro
    return chosen(found, ranks, stage, micro, nodes)


def beside(foreseen: Forecast, actual: Actual) -> Iterator[Line]:
    """What was foreseen and can be compared."""
    if actual.memory:
        low, high = (1 - MEMORY) * foreseen.memory, (1 + MEMORY) * foreseen.memory
        yield Line(
            "memory", _size(foreseen.memory), _size(actual.memory), _outside(actual.memory, low, high, f"it by more than {MEMORY:.0%}")
        )
    if foreseen.seconds and actual.seconds:
        low, high = foreseen.seconds
        unit, scale = ("s", 1.0) if high >= 1 else ("ms", 1000.0)
        told = f"{scale * low:.3g} to {scale * high:.3g} {unit} a step"
        yield Line("time", told, f"{scale * actual.seconds:.3g} {unit}", _outside(actual.seconds, low, high, "the range"))
    if foreseen.usd and actual.usd is not None:
        low, high = foreseen.usd
        missed = _outside(actual.usd, low if actual.done else 0.0, high, "the range, which is of the training alone")
        yield Line("cost", f"${low:,.2f} to ${high:,.2f}", f"${actual.usd:,.2f}", missed)


def _outside(value: float, low: float, high: float, what: str) -> str:
    return "" if low <= value <= high else f"{'above' if value > high else 'below'} {what}"


def _of(raw: object) -> Forecast | None:
    if not isinstance(raw, Mapping):
        return None
    counts = [raw.get(name) for name in ("ranks", "stage", "micro", "memory")]
    whole = [one for one in counts if type(one) is int and 0 <= one < 2**53]
    if len(whole) != 4:
        return None
    words = [str(raw.get(name) or "")[:253] for name in ("nodes", "basis")]
    ranks, stage, micro, memory = whole
    return Forecast(words[0], ranks, stage, micro, memory, _pair(raw.get("seconds")), _pair(raw.get("usd")), words[1])


def _pair(raw: Any) -> tuple[float, float] | None:
    if not isinstance(raw, list) or len(raw) != 2 or any(isinstance(one, bool) or not isinstance(one, int | float) for one in raw):
        return None
    low, high = float(raw[0]), float(raw[1])
    return (low, high) if 0 <= low <= high < math.inf else None


def _size(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
