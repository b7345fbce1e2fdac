"""What follows from a metric of the evaluations, a plateau schedule and early stopping: rules between them and what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from trainjobs.api.job import Spec
from trainjobs.api.metrics import METRICS, NEVER_HELD, listing, measured_by
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.shape import Path
from trainjobs.api.training import EarlyStopping, Schedule
from trainjobs.api.uris import builtin

_SCHEDULE, _EARLY = ("training", "schedule", "metric"), ("training", "earlyStopping", "metric")
_GIVEN = {_SCHEDULE: "self.training.schedule.name == 'plateau'", _EARLY: "has(self.training.earlyStopping)"}


def rises(settings: Schedule | EarlyStopping) -> bool:
    """Whether higher is better of its metric: as it says, else as the table of metrics has it, else not."""
    if settings.mode != "auto":
        return settings.mode == "max"
    return any(metric.name == settings.metric and metric.mode == "max" for metric in METRICS)


def followed(spec: Spec) -> dict[Path, str]:
    """The metrics that the run's course depends on, by their places."""
    training = spec.training
    found: dict[Path, str] = {_SCHEDULE: training.schedule.metric} if training.schedule.name == "plateau" else {}
    return found | ({_EARLY: training.early_stopping.metric} if training.early_stopping else {})


def metric_is_measured(place: Path, spec: Spec) -> Iterator[Breach]:
    """What a custom objective measures only it knows: its first evaluation says."""
    metric = followed(spec).get(place)
    if metric is None or spec.custom is not None or len(spec.families) != 1:
        return
    known = [each.name for each in METRICS if each.asked and each.suits(spec.families, builtin(spec.data.uri), spec.evaluation.features)]
    if spec.diffusion is not None and spec.diffusion.process.prediction == "flow":
        known = [name for name in known if name != "heldout/bits"]
    if metric not in known:
        why = f"measured here: {listed(known, 'and')}" if known else "nothing is measured here that could be followed"
        how = did_you_mean(metric, known) or ("" if known else "take it out, or give a fixed schedule and number of steps")
        yield Breach(place, f'"{metric}" is not measured', why, how)


def metric_has_samples(place: Path, spec: Spec) -> Iterator[Breach]:
    metric = followed(spec).get(place, "")
    if metric.startswith("heldout/") and metric != NEVER_HELD and spec.data.holdout == 0 and spec.data.split.validation is None:
        why = "data.holdout is 0: no sample is held out"
        yield Breach(place, f"{metric} cannot be measured", why, "write a share such as `holdout: 0.05`, or follow another metric")


_FLOW = "(!has(self.diffusion) || self.diffusion.process.prediction != 'flow' || {path} != 'heldout/bits')"

RULES = tuple(
    rule
    for place, given in _GIVEN.items()
    for path in (f"self.{'.'.join(place)}",)
    for rule in (
        Rule(
            "spec",
            "GTJ0102",
            partial(metric_is_measured, place),
            f"has(self.custom) || !({given}) || (({measured_by(path)}) && {_FLOW.format(path=path)})",
            f"{'.'.join(place)} is not measured: {listing()}",
        ),
        Rule(
            "spec",
            "GTJ0108",
            partial(metric_has_samples, place),
            f"!({given}) || !{path}.startsWith('heldout/') || {path} == '{NEVER_HELD}' || self.data.holdout > 0.0 || "
            "has(self.data.split.validation)",
            f"{'.'.join(place)} cannot be measured: data.holdout is 0",
        ),
    )
)
