"""What to do when a metric is no longer a number, or a loss far above what it was.

A run that diverges goes back to its last commit and leaves out the batches up to the first bad one, so that what follows is another
future: the same weights, later samples, other noise. The bad step is looked up in what every step measured, not taken from the moment
at which somebody noticed; a run that is repeated diverges, goes back and goes on alike. What a spike is, spikes.py says; what is usual
is saved with every commit, so that a run that was killed goes on to find what it would have found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.recovery import Recovery
from trainjobs.checkpoints import Commit
from trainjobs.engine.engine import Engine
from trainjobs.monitor.meter import Meter
from trainjobs.monitor.spikes import NOTHING, LossAverages, Spike
from trainjobs.state import State
from trainjobs.world import World


@dataclass(frozen=True)
class Divergence:
    """`what` is so since `step`, by whose end `samples` were drawn: "loss not finite"."""

    what: str
    step: int
    samples: int
    spike: bool = False


def find(
    means: Mapping[str, float], meter: Meter, engines: Mapping[str, Engine], state: State, world: World, *, save: bool
) -> Divergence | None:
    """What has diverged, the same on every rank. Before a `save` the weights are looked at, too: at ZeRO stage 0 an infinite gradient
    shows in nothing else of its own step. Every rank must call it."""
    bad = sorted(name for name, value in means.items() if not math.isfinite(value))
    if not bad:
        bad = [f"gradient of the {name}" for name in meter.skipped()]
    if save and not bad:
        broken = world.sum([float(not engine.finite()) for engine in engines.values()])
        bad = [f"weights of the {name}" for name, count in zip(engines, broken, strict=True) if count]
    if not bad:
        return None
    firsts = [first for first in world.gather(meter.first_bad()) if first is not None]
    first = min(firsts, key=lambda first: first.step, default=state)
    return Divergence(f"{', '.join(bad)} not finite", first.step, first.samples)


@dataclass
class Lookout:
    """Looks for spikes in the losses. `usual` is how the losses were up to the last sync; a commit keeps it."""

    recovery: Recovery
    usual: LossAverages = NOTHING

    @property
    def looks(self) -> bool:
        return self.recovery.on_loss_spike != "ignore"

    def state(self) -> dict[str, Any]:
        return dict(self.usual.to_dict())

    def load_state(self, state: dict[str, Any]) -> None:
        self.usual = LossAverages.from_dict(state)

    def find(self, meter: Meter, world: World, finish: Callable[[], Commit | None], warn: Callable[[JobError], None]) -> Divergence | None:
        """The first spike since the last sync that shall take the run back, the same on every rank; rank 0 `warn`s of others. Every rank
        must call it. `finish` ends what is being saved, and says which commit there is. Without one the run goes on: a spike is no reason
        to lose everything."""
        if not self.looks:
            return None
        limits = self.recovery.loss_spike
        for turns in zip(*world.gather(meter.losses()), strict=True):  # every rank's account of one step
            state = turns[0][0]
            losses = {name: math.fsum(means[name] for _, means in turns) / world.size for name in turns[0][1]}
            self.usual, spikes = self.usual.after(losses, limits.window, limits.z_score)
            if spikes and self.recovery.on_loss_spike == "rollback":
                commit = finish()  # whether there is a checkpoint must not depend on how fast a store is
                if commit is not None:
                    return Divergence(", ".join(map(str, spikes)), state.step, state.samples, spike=True)
            if spikes and world.leads:
                warn(_spiked(spikes, state.step, self.recovery.on_loss_spike == "rollback"))
        return None


def _spiked(spikes: list[Spike], step: int, lost: bool) -> JobError:
    how = "no checkpoint was taken before, so the run goes on" if lost else "the run goes on; recovery.onLossSpike: rollback would go back"
    return JobError("GTJ0207", ", ".join(map(str, spikes)), where=f"step {step}", how=how)


def refuse(divergence: Divergence, good: Commit | None, rollbacks: int, recovery: Recovery) -> None:
    """Raise JobError GTJ0207 when the run must end: there is nothing to go back to, it went back often enough, or is told to `halt`."""
    mode = "rollback" if divergence.spike else recovery.on_non_finite_loss
    if mode == "rollback" and good is not None and rollbacks < recovery.max_rollbacks:
        return
    lower = "lower training.optimizers.*.learningRate or set training.gradientClipping"
    why = "the training diverged: a learning rate too high, or a precision too low, is the usual cause"
    if rollbacks:
        why = f"it went back to a checkpoint {rollbacks} times, left out the batches, and diverged again"
    raise JobError(
        "GTJ0207",
        divergence.what,
        where=f"step {divergence.step}",
        why=why,
        how=f"the last good checkpoint is at step {good.step}; {lower}" if good else f"no checkpoint was taken before; {lower}",
    )
