"""Looking at a model in training: held-out scores and a few samples. Every worker takes part, rank 0 keeps the samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from trainjobs.api.job import Spec
from trainjobs.api.metrics import question
from trainjobs.data import ring
from trainjobs.data.source import Source
from trainjobs.evaluate.coverage import coverage
from trainjobs.noise import Noise
from trainjobs.objectives.phase import Batch, Objective, Samples
from trainjobs.world import World

# Held-out samples looked at per worker: enough for a score that moves smoothly, few enough not to be noticed.
HELDOUT = 256


def look(
    spec: Spec, source: Source, objective: Objective, networks: Mapping[str, nn.Module], world: World
) -> tuple[dict[str, float], Samples]:
    """Scores ("heldout/loss", "modes", ...), equal on every rank, and samples that are the same at every step but for the weights."""
    was_training = {name: network.training for name, network in networks.items()}
    for network in networks.values():
        network.eval()
    autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=spec.training.precision == "bf16")
    with torch.no_grad(), autocast:
        wanted = measured(spec)
        scores = {name: value for name, value in heldout(spec, source, objective, world).items() if name.removeprefix("heldout/") in wanted}
        noise = Noise.of(spec.training.seed, 0, "samples", torch.arange(spec.evaluation.samples, device=world.device))
        samples = objective.sample(spec.evaluation.samples, noise)
        if source.info.modes is not None and "modes" in wanted:
            many = Noise.of(spec.training.seed, 1, "samples", torch.arange(2000, device=world.device))
            points = objective.sample(2000, many).points
            if points is not None:
                covered = coverage(points, source.info.modes, ring.SIGMA)
                scores |= {"modes": float(covered.covered), "modes/quality": covered.high_quality}
    for name, network in networks.items():
        network.train(was_training[name])
    return scores, samples


def measured(spec: Spec) -> set[str]:
    """The metrics that the manifest asks for, by evaluation.metrics or by choosing the best checkpoint."""
    best = spec.checkpoints.keep.best
    return {*spec.evaluation.metrics, *([question(best.metric)] if best else [])}


def heldout(spec: Spec, source: Source, objective: Objective, world: World) -> dict[str, float]:
    """Means over held-out samples dealt to the ranks in equal shares."""
    share = min(source.info.heldout // world.size, HELDOUT)
    micro = spec.training.batch.micro or max(1, spec.training.batch.global_ // world.size)
    totals: dict[str, float] = {}
    for start in range(0, share, micro):
        size = min(micro, share - start)
        indices = torch.arange(start, start + size) * world.size + world.rank
        noise = Noise.of(spec.training.seed, 0, "heldout", indices.to(world.device))
        data = {name: value.to(world.device) for name, value in source.heldout_batch(indices).items()}
        for name, value in objective.heldout(Batch(data, noise, size)).items():
            totals[name] = totals.get(name, 0.0) + float(value) * size / share
    means = world.sum([totals[name] / world.size for name in sorted(totals)])
    scores = {f"heldout/{name}": value for name, value in zip(sorted(totals), means, strict=True)}
    if "heldout/perplexity" in scores:
        scores["heldout/perplexity"] = math.exp(scores["heldout/loss"])  # of the mean loss, not the mean over micro-batches
    return scores
