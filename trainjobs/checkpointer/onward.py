"""What a run that goes on does otherwise than it would have without a stop, although nothing forbids it: told once, when it is resumed.

That is a learning rate that leaps because the schedule ends at another step; layers whose numbers depend on how a batch is cut, and fp16
from ZeRO stage 1 on, where it is cut otherwise; and an average of a version without warm-up. Everything else is the same for any cut, or
is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm

from trainjobs.api.errors import JobError
from trainjobs.api.problem import listed
from trainjobs.api.training import Training
from trainjobs.checkpoints import Commit
from trainjobs.optim.schedule import kept, rate
from trainjobs.plan.batch import Cut

LEAP = 0.01  # of the peak rate
_ALPHA = (nn.AlphaDropout, nn.FeatureAlphaDropout)


def differences(
    commit: Commit, training: Training, peaks: Mapping[str, float], cut: Cut, networks: Mapping[str, nn.Module], stage: int
) -> Iterator[JobError]:
    """What is to be told of a run that goes on from `commit` at a ZeRO stage; `peaks` are learning rates by group."""
    yield from rate_leaps(commit, training, peaks)
    yield from average_warms(commit, training, cut)
    yield from cut_counts(commit, cut, networks, halves=training.precision == "fp16" and stage > 0)


def rate_leaps(commit: Commit, training: Training, peaks: Mapping[str, float]) -> Iterator[JobError]:
    """GTJ0127 where the step after the commit has another rate than it would have had. Commits of before do not say of how many steps."""
    steps, step = _then(commit, "job", "training.steps"), commit.step
    if not isinstance(steps, int) or not 0 < step < training.steps:
        return
    before, would, now = (rate(training.schedule, *at) for at in ((step - 1, steps), (step, steps), (step, training.steps)))
    if abs(now - would) <= LEAP:
        return
    shown = list(peaks.items())[:3]
    leaps = listed([f"{before * peak:.3g} to {now * peak:.3g} ({name})" for name, peak in shown], "and")
    why = f"the {training.schedule.name} schedule ended at step {steps}, and ends at step {training.steps} now"
    how = "a new job with training.initialWeights takes the weights and has a schedule of its own"
    yield JobError("GTJ0127", f"the learning rate goes from {leaps} at step {step + 1}", where="spec.training.steps", why=why, how=how)


def average_warms(commit: Commit, training: Training, cut: Cut) -> Iterator[JobError]:
    """GTJ0127 where a moving average goes on from a commit of a version whose averages had no warm-up, and would still be warming up."""
    ema, step = training.ema, commit.step
    if ema is None or not commit.metadata.get("ema") or "job" in commit.metadata:
        return
    decay, now = ema.decays(cut.size), kept(ema, step, cut.size)
    if now < decay:
        what = f"the moving average goes on with a decay of {now:.4g} at step {step + 1}, not {decay:g}"
        why = "the checkpoint is of a version without warm-up; the average that it has is kept, and follows the weights faster for a while"
        yield JobError("GTJ0127", what, where="spec.training.ema.warmup", why=why, how="nothing has to be done")


def cut_counts(commit: Commit, cut: Cut, networks: Mapping[str, nn.Module], *, halves: bool = False) -> Iterator[JobError]:
    """GTJ0127 where batches are cut otherwise and a network has layers for which that counts, or gradients are fp16 `halves`: they overflow
    by how many micro-batches of a process their losses are divided by."""
    micro = _then(commit, "around", "micro-batch")
    other_micro = micro != cut.micro if isinstance(micro, int) else commit.world != cut.workers
    other_turns = other_micro or commit.world != cut.workers  # micro-batches of a step that a process computes
    found = []
    for name, network in networks.items():
        kinds = layers(network)
        if "batch norm" in kinds and other_turns:
            found.append(f"batch norm of {name} is over a micro-batch, and its running statistics are those of rank 0")
        if "spectral norm" in kinds and other_turns:
            found.append(f"spectral norm of {name} goes one power iteration further with each micro-batch of a process")
        if "dropout" in kinds and other_micro:
            found.append(f"dropout of {name} is drawn within a function of torch, for a micro-batch as a whole")
    if halves and other_turns:
        found.append("fp16 gradients overflow, and steps are skipped, by the number of micro-batches that a process has")
    if found:
        before = f"of {micro} on {commit.world}" if isinstance(micro, int) else f"on {commit.world}"
        on = f"{cut.workers} process{'es' if cut.workers > 1 else ''}"
        what = f"micro-batches of {cut.micro} on {on}, before {before}, change the numbers"
        how = "the same training.batch.micro and number of workers go on bit for bit"
        yield JobError("GTJ0127", what, where="spec.training.batch", why="; ".join(found), how=how)


def _then(commit: Commit, part: str, name: str) -> Any:
    """A value when the commit was taken, of the account that it carries (before.py); None where a version of before kept none."""
    return commit.metadata.get(part, {}).get(name)


def layers(network: nn.Module) -> set[str]:
    """Which kinds of layers it has whose numbers depend on the cut: batch norm, spectral norm, dropout (torch's own)."""
    found = set()
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            found.add("batch norm")
        if type(layer).__name__ == "_SpectralNorm" or any(isinstance(hook, SpectralNorm) for hook in layer._forward_pre_hooks.values()):
            found.add("spectral norm")
        if (isinstance(layer, nn.RNNBase) and layer.dropout > 0.0) or (isinstance(layer, _ALPHA) and layer.p > 0.0):
            found.add("dropout")
    return found
