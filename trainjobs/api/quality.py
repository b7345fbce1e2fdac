"""How good generated pictures are, by features of a network: which of these scores a job has, and rules about what they are given."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from trainjobs.api import uris
from trainjobs.api.evaluation import FID_SAMPLES
from trainjobs.api.follows import followed
from trainjobs.api.job import Spec
from trainjobs.api.metrics import BUILTIN, METRICS, QUALITY, question
from trainjobs.api.rule import Breach, Rule


def qualities(spec: Spec) -> frozenset[str]:
    """Of fid, kid, is, precision and recall those that evaluation.metrics names, the best checkpoint is chosen by, or the run follows."""
    return frozenset(QUALITY) & {*spec.evaluation.metrics, *map(question, decisive(spec))}


def decisive(spec: Spec) -> set[str]:
    """The metrics that something is decided by: they are waited for."""
    best = spec.checkpoints.keep.best
    return {*([best.metric] if best else []), *followed(spec).values()}


def pictures(spec: Spec) -> int:
    """How many are generated for them."""
    return spec.evaluation.fid_samples or FID_SAMPLES


def has_effect(key: str, attribute: str, spec: Spec) -> Iterator[Breach]:
    value = getattr(spec.evaluation, attribute)
    if value not in (None, BUILTIN) and not qualities(spec):
        why = "nothing is measured that it is for: fid, kid, is, precision and recall"
        how = f"name one of them in evaluation.metrics, or take {key} out"
        yield Breach(("evaluation", key), f"evaluation.{key} has no effect", why, how, on_key=True)


def features_are_somewhere(features: str) -> Iterator[Breach]:
    if features != BUILTIN:
        yield from uris.prefix(features, "a file of a network is read there")


_NAMES = [metric.name for metric in METRICS if metric.asked in QUALITY]
_ASKED = " || ".join(
    [
        f"self.evaluation.metrics.exists(m, m in {list(QUALITY)})",
        f"(has(self.checkpoints.keep.best) && self.checkpoints.keep.best.metric in {_NAMES})",
        f"(self.training.schedule.name == 'plateau' && self.training.schedule.metric in {_NAMES})",
        f"(has(self.training.earlyStopping) && self.training.earlyStopping.metric in {_NAMES})",
    ]
)

RULES = (
    *(
        Rule(
            "spec",
            "GTJ0108",
            partial(has_effect, key, attribute),
            f"{without} || {_ASKED}",
            f"evaluation.{key} has no effect: none of fid, kid, is, precision and recall is measured",
        )
        for key, attribute, without in (
            ("features", "features", f"self.evaluation.features == '{BUILTIN}'"),
            ("fidSamples", "fid_samples", "!has(self.evaluation.fidSamples)"),
        )
    ),
    Rule(
        "spec.evaluation.features",
        "GTJ0107",
        features_are_somewhere,
        f"self == '{BUILTIN}' || ({uris.PREFIX})",
        uris.UNUSABLE,
    ),
)
