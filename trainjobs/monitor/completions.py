"""Watches over completions that are learned from by rewards: steps from which nothing is learned.

flat     all groups of 20 steps running were flat: the completions of each prompt were worth the same, so that none is better (GRPO)
cut off  no completion of 20 steps running came to its end within maxCompletion
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.monitor.troubles import Troubles


@dataclass
class CompletionWatches:
    method: str
    most: int  # tokens of a completion
    adapts_every: int = 20  # steps of a window
    troubles: Troubles = field(init=False)

    def __post_init__(self) -> None:
        self.troubles = Troubles(f"language.{self.method}")

    @classmethod
    def of(cls, spec: Spec) -> CompletionWatches | None:
        own = spec.language.rewarded if spec.language else None
        return cls(spec.language.method, own.max_completion) if spec.language and own else None

    def state(self) -> dict[str, Any]:
        return {"told": list(self.troubles.told)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.troubles = Troubles(self.troubles.where, list(state["told"]))

    def adapt(self, means: Mapping[str, float]) -> None:
        """The means over a window of steps and all ranks."""
        flat, ended = means.get("groups/flat"), means.get("completion/ended")
        what = f"nothing is learned: in {self.adapts_every} steps running all completions of each prompt were worth the same"
        why = f"a group's advantages are differences from its mean; the mean reward is {means.get('reward', 0.0):.3g}"
        how = "make the reward finer, the prompts easier or harder, or raise the temperature; dynamicSampling leaves flat groups out"
        self.troubles.say("flat", flat == 1.0, what, why, how)
        what = f"in {self.adapts_every} steps running every completion was cut off"
        why = f"none came to its end within {self.most} tokens, so what is rewarded are beginnings"
        how = "raise maxCompletion, begin from a model that was fine-tuned to end its answers, or reward ends"
        self.troubles.say("cut off", ended == 0.0, what, why, how)

    def evaluated(self, step: int, scores: Mapping[str, float], late: Mapping[str, float]) -> None:
        """Nothing of it is seen in an evaluation."""

    def news(self) -> Iterator[JobError]:
        return self.troubles.news()

    @property
    def standing(self) -> bool:
        return bool(self.troubles.told)

    @property
    def collapse(self) -> JobError | None:
        """It goes on."""
        return None
