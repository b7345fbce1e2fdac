"""Rules of the win rate: whom a model is compared with, and by what."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.job import Spec
from trainjobs.api.language import Language
from trainjobs.api.language_rules import needed_by
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.task_rules import named, none_named

WON = ("heldout/win_rate",)
REFERRED = ("dpo", "grpo", "ppo")  # methods that have a reference


def referred(language: Language) -> bool:
    """Whether there is a reference: the network without its adapters, or a copy of how it began, which a weight of 0 leaves out."""
    held = {"dpo": 1.0, "grpo": language.grpo.beta, "ppo": language.ppo.kl_coefficient}
    return language.method in held and (language.adapter is not None or held[language.method] > 0)


def compares(spec: Spec) -> Iterator[Breach]:
    own = spec.language
    if own is None:
        return
    for place, name in named(spec, WON).items():
        if own.method not in REFERRED:
            how = f"take it out, or set language.method to one of {', '.join(REFERRED)}"
            yield Breach(place, f"{name} with method: {own.method}", "there is no reference to be compared with", how)
        elif not referred(own):
            weight = {"grpo": "grpo.beta", "ppo": "ppo.klCoefficient"}[own.method]
            how = f"set language.{weight} above 0, or train an adapter"
            yield Breach(place, f"{name} without a reference", f"with language.{weight} of 0 none is held", how)
        elif not spec.evaluation.rewards and own.rewarded is None:
            how = "add evaluation.rewards: [{function: package.module:function}], or one of length, regex and match"
            yield Breach(place, f"{name} without rewards", "they are what completions are better or worse by", how)
        elif not spec.evaluation.rewards and own.rewarded and any(one.source for one in own.rewarded.rewards):
            how = "name functions in evaluation.rewards"
            yield Breach(place, f"{name} by a trained model of rewards", "an evaluation asks functions alone", how)


def has_effect(spec: Spec) -> Iterator[Breach]:
    if spec.evaluation.rewards and not named(spec, WON):
        why, how = "they are what win_rate compares by", "name win_rate in evaluation.metrics, or take rewards out"
        yield Breach(("evaluation", "rewards"), "evaluation.rewards has no effect", why, how, on_key=True)


_HELD = (
    "self.language.method == 'dpo'",
    "(self.language.method == 'grpo' && (has(self.language.adapter) || self.language.grpo.beta > 0.0))",
    "(self.language.method == 'ppo' && (has(self.language.adapter) || self.language.ppo.klCoefficient > 0.0))",
)

RULES = (
    Rule(
        "spec",
        "GTJ0108",
        compares,
        f"!has(self.language) || ({none_named(WON)}) || (({' || '.join(_HELD)}) && "
        "(size(self.evaluation.rewards) > 0 ? true : "
        "self.language.method == 'grpo' ? !self.language.grpo.rewards.exists(one, has(one.source)) : "
        "self.language.method == 'ppo' && !self.language.ppo.rewards.exists(one, has(one.source))))",
        "win_rate needs a reference, which dpo has, and grpo and ppo with a weight above 0 or an adapter; and functions to compare by, for "
        "dpo evaluation.rewards",
    ),
    Rule(
        "spec",
        "GTJ0108",
        has_effect,
        f"size(self.evaluation.rewards) == 0 || !({none_named(WON)})",
        "evaluation.rewards has no effect: win_rate is not measured",
    ),
    needed_by("spec.evaluation.rewards.*"),
)
