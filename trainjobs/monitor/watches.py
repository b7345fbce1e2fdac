"""Watches over a GAN: what its losses do not show.

collapse     `samples/spread` (evaluate/spread.py) below a quarter, or fewer than half of the modes that were ever covered (four at least),
             at three evaluations running; the spread counts from where it was more once, or from step 500 on
oscillation  `samples/moved` above 1, samples of fixed latents moving further than they differ from each other, while their distance from
             the data is no lower than nine tenths of what it was before, at three evaluations running. The distance is FID where the run
             measures it, else KID where it measures that, else `samples/distance`
vanishing    the generator's gradient norm below a thousandth of its running median, over twenty steps in which the discriminator is right
             on 99 %. Wasserstein losses have no such thing
augment      ADA's p above 0.8, where augmentation begins to show in samples

Each is told once, and again when it was over and comes back. Counts are state, in every commit, and the same on every rank: they follow
from means over all ranks at fixed steps. What samples were at the evaluation before is not kept: the first one of an attempt counts nothing
of how they moved. FID and KID that are computed beside training are there at the next evaluation, and only then is it judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from types import MappingProxyType
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.gan import WASSERSTEIN
from trainjobs.api.job import Spec
from trainjobs.api.quality import qualities
from trainjobs.evaluate.spread import DISTANCE, MOVED, SPREAD
from trainjobs.monitor.reporter import Reporter
from trainjobs.monitor.troubles import CODE, Troubles, Watches

LEAST_SPREAD, RUNNING, FIRST, STANDS, SURE, VANISHED, LEAKS, MODES = 0.25, 3, 500, 0.9, 0.99, 1e-3, 0.8, 4
USUAL = 100  # windows of which the median is taken
NORM = "gradient_norm/generator"


@dataclass
class GanWatches:
    """`wasserstein`: its scores say nothing of being right. Told by the loop what was measured; `news` is what is to be said."""

    wasserstein: bool
    adapts_every: int = 20  # steps of a window
    by: str = ""  # fid or kid, which comes with an evaluation or one later; else samples/distance counts
    _moved: float | None = None  # at the evaluation whose distance is still to come
    _low: int = 0
    _restless: int = 0
    _whole: bool = False  # spread was enough once
    _modes: float = 0.0
    _distance: float = math.inf
    _norms: list[float] = field(default_factory=list)
    _troubles: Troubles = field(default_factory=lambda: Troubles("gan"))

    @classmethod
    def of(cls, spec: Spec) -> GanWatches | None:
        by = next((name for name in ("fid", "kid") if name in qualities(spec)), "")
        return cls(spec.gan.loss.type in WASSERSTEIN, by=by) if spec.gan else None

    def state(self) -> dict[str, Any]:
        distance = self._distance if math.isfinite(self._distance) else None
        counts = {"low": self._low, "restless": self._restless, "whole": self._whole, "modes": self._modes, "distance": distance}
        return {**counts, "norms": list(self._norms), "told": list(self._troubles.told)}

    def load_state(self, state: dict[str, Any]) -> None:
        self._low, self._restless, self._whole, self._modes = state["low"], state["restless"], state["whole"], state["modes"]
        self._distance = math.inf if state["distance"] is None else state["distance"]
        self._norms, self._troubles = list(state["norms"]), Troubles("gan", list(state["told"]))

    def adapt(self, means: Mapping[str, float]) -> None:
        """The means over a window of steps and all ranks."""
        norm, accuracy = means.get(NORM), means.get("accuracy/D")
        if norm is not None and math.isfinite(norm):
            usual = median(self._norms) if len(self._norms) >= RUNNING else 0.0
            vanished = not self.wasserstein and accuracy is not None and accuracy > SURE and norm < VANISHED * usual
            what = f"the generator's gradient has vanished: its norm is {norm:.2g}, and was {usual:.2g}"
            why = f"the discriminator is right on {100 * (accuracy or 0):.1f} % of the samples, and so sure that nothing is learned from it"
            how = "use bce, lsgan or hinge instead of minimax, lower the discriminator's rate, or add r1 or spectralNorm"
            self._troubles.say("vanishing", vanished, what, why, how)
            if not vanished:  # else it would soon be usual, and be over
                self._norms = [*self._norms, norm][-USUAL:]
        p = means.get("augment/p", 0.0)
        what = f"augmentation has reached p = {p:.2f}"
        why = f"above {LEAKS} turned or coloured samples are learned as if the data had them"
        self._troubles.say("augment", p > LEAKS, what, why, "add data, or leave color or geom out of gan.augment.pipeline")

    def evaluated(self, step: int, scores: Mapping[str, float], late: Mapping[str, float] = MappingProxyType({})) -> None:
        """After every evaluation; `late` are figures of the one before that were computed beside training."""
        spread, modes = scores.get(SPREAD), scores.get("modes")
        self._modes = max(self._modes, modes or 0.0)
        self._whole = self._whole or (spread is not None and spread >= LEAST_SPREAD)
        narrow = spread is not None and spread < LEAST_SPREAD and (self._whole or step >= FIRST)
        lost = modes is not None and self._modes >= MODES and modes < self._modes / 2
        self._low = self._low + 1 if narrow or lost else 0
        share = f"samples differ by {100 * spread:.2g} % of what data differ by" if narrow and spread is not None else ""
        gone = f"{modes:.0f} of {self._modes:.0f} modes are left" if lost else ""
        why = f"it was so at {self._low} evaluations running; the generator has found few samples that satisfy the discriminator"
        how = "try r1, minibatchDeviation, wgan-gp, or a lower rate of the generator; a checkpoint from before can be gone on from"
        self._troubles.say("collapse", self._low >= RUNNING, f"the generator has collapsed: {share or gone}", why, how)

        self._chased(self._moved, late)
        self._moved = scores.get(MOVED) if not narrow else 0.0
        self._chased(self._moved, scores)

    def _chased(self, moved: float | None, scores: Mapping[str, float]) -> None:
        """Judges an evaluation by how far samples moved and their distance from the data, when both are there."""
        name = next((name for name in scores if (name.partition("/")[0] == self.by if self.by else name == DISTANCE)), None)
        if moved is None or name is None:
            return
        distance = max(0.0, scores[name])  # KID of what is alike is around 0
        stands = distance >= STANDS * self._distance
        self._restless = self._restless + 1 if moved > 1.0 and stands else 0
        self._distance = min(self._distance, distance) if self._restless else distance
        what = f"the networks chase each other: samples of the same latents moved {moved:.2g} times as far as they differ"
        why = f"at {self._restless} evaluations running, while {name} stood at {distance:.3g}"
        how = "lower both rates, add r1 or a gradient penalty, or average the weights with training.ema"
        self._troubles.say("oscillation", self._restless >= RUNNING, what, why, how)

    def news(self) -> Iterator[JobError]:
        """What has not been said yet."""
        return self._troubles.news()

    @property
    def standing(self) -> bool:
        """Whether something that was told is so still."""
        return bool(self._troubles.told)

    @property
    def collapse(self) -> JobError | None:
        """It, as long as it lasts."""
        why, how = (
            f"recovery.onCollapse is halt; {self._low} evaluations running",
            "go on from a checkpoint from before, with other settings",
        )
        return JobError(CODE, "the generator has collapsed", where="gan", why=why, how=how) if "collapse" in self._troubles.told else None


def tell_troubles(watches: Watches, reporter: Reporter | None, spec: Spec) -> JobError | None:
    """Rank 0 tells what is new. What the run is to end with, the same on every rank."""
    news = list(watches.news())
    if reporter and news:
        reporter.troubled(news)
    elif reporter and not watches.standing:
        reporter.untroubled()
    return watches.collapse if spec.recovery.on_collapse == "halt" else None
