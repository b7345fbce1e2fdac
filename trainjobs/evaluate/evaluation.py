"""Looking at a model in training: scores and a few samples. Every rank draws and measures its share, rank 0 keeps the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from trainjobs.api.evaluation import SAMPLES
from trainjobs.api.job import Spec
from trainjobs.api.metrics import LIVE, question
from trainjobs.data import ring
from trainjobs.data.source import Conditional, Source
from trainjobs.evaluate.active_units import ActiveUnits
from trainjobs.evaluate.coverage import ModeCoverage
from trainjobs.evaluate.heldout import Heldout
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.score import Score, joined
from trainjobs.noise import Noise
from trainjobs.objectives.batches import inference
from trainjobs.objectives.phase import At, Batch, Encoding, Objective, Samples
from trainjobs.plan.beside import passes
from trainjobs.world import World


def evaluation(
    spec: Spec,
    source: Source,
    objective: Objective,
    networks: Mapping[str, nn.Module],
    world: World,
    micro: int,
    at: At,
    samples: int = SAMPLES,
    tell: Callable[[str], None] = lambda words: None,
) -> tuple[dict[str, float], Samples]:
    """Scores ("heldout/loss", "modes", ...), equal on every rank, and `samples` that are the same at every step but for the weights; on
    rank 0 all of them, elsewhere none. `micro` is how many rows pass a network at a time. `tell` hears on every rank what is done,
    at each pass of a network."""
    wanted, looking = measured(spec), Looking(tell, passes(spec))
    scores: dict[str, float] = {}
    autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=spec.training.precision == "bf16")
    with inference(networks, autocast), looking.listening(networks):
        for score in asked_for(spec, source, objective, wanted):
            look(score, spec, source, objective, world, micro, at, looking)
            for made in drawn(spec, source, objective, score.generated, 1, world, micro, at, looking):
                score.add(None, made)
            scores |= score.result(world)
        pieces = list(drawn(spec, source, objective, samples, 0, world, micro, at, looking))
    turns = world.collect(pieces)  # rank by rank; a turn's rows lie rank by rank, too
    whole = joined([share[turn] for turn in range(max(map(len, turns), default=0)) for share in turns if turn < len(share)])
    return chosen(scores, wanted), whole


def live(
    spec: Spec,
    source: Source,
    objective: Objective,
    networks: Mapping[str, nn.Module],
    world: World,
    micro: int,
    at: At,
    tell: Callable[[str], None] = lambda words: None,
) -> dict[str, float]:
    """The held-out scores of the weights themselves, for beside those of their average: "heldout/loss/live"; equal on every rank."""
    autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=spec.training.precision == "bf16")
    score, looking = Heldout(objective.heldout), Looking(tell, passes(spec))
    with inference(networks, autocast), looking.listening(networks):
        look(score, spec, source, objective, world, micro, at, looking)
    return {f"{name}{LIVE}": value for name, value in chosen(dict(score.result(world)), measured(spec)).items()}


def look(score: Score, spec: Spec, source: Source, objective: Objective, world: World, micro: int, at: At, looking: Looking) -> None:
    """Show a score the held-out samples that it wants, this rank's share."""
    for rows, counts in looking.turns("evaluating", min(score.heldout, source.info.heldout), micro, world):
        data = {name: value.to(world.device) for name, value in source.heldout_batch(rows).items()}
        noise = Noise.of(spec.training.seed, 0, "heldout", rows.to(world.device))
        batch = Batch(data, noise, len(rows), at)
        if counts:
            score.add(batch, None)
        else:
            objective.heldout(batch)  # the other ranks need this one's share of the weights


def chosen(scores: dict[str, float], wanted: set[str]) -> dict[str, float]:
    """Of what was measured, and what follows from it, that which the manifest wants to know."""
    if "heldout/loss" in scores:
        scores["heldout/perplexity"] = math.exp(min(scores["heldout/loss"], 700.0))
    return {name: value for name, value in scores.items() if question(name) in wanted}


def looked_at(spec: Spec, source: Source, objective: Objective) -> tuple[int, int]:
    """How many held-out samples an evaluation looks at, and how many it draws for its scores."""
    scores = asked_for(spec, source, objective, measured(spec))
    return sum(min(score.heldout, source.info.heldout) for score in scores), sum(score.generated for score in scores)


def asked_for(spec: Spec, source: Source, objective: Objective, wanted: set[str]) -> Sequence[Score]:
    """The scores that give what the manifest wants to know."""
    scores: list[Score] = [Heldout(objective.heldout)]
    if isinstance(objective, Encoding) and "active_units" in wanted:
        scores.append(ActiveUnits(objective.latents))
    if source.info.modes is not None and "modes" in wanted:
        scores.append(ModeCoverage(source.info.modes, ring.SIGMA))
    return scores


def drawn(
    spec: Spec,
    source: Source,
    objective: Objective,
    count: int,
    series: int,
    world: World,
    micro: int,
    at: At,
    looking: Looking | None = None,
) -> Iterator[Samples]:
    """This rank's share of `count` samples of a series (0: those that are shown), piece by piece. Sample n is the same on any number of
    ranks: its noise and its conditions go by n."""
    looking = looking or Looking()
    for rows, counts in looking.turns(f"drawing {count} samples,", count, micro, world, looking.passes):
        noise = Noise.of(spec.training.seed, series, "samples", rows.to(world.device))
        data = {name: value.to(world.device) for name, value in conditions(source, rows).items()}
        made = objective.sample(Batch(data, noise, len(rows), at))
        if counts:
            yield made


def conditions(source: Source, rows: Tensor) -> Mapping[str, Tensor]:
    """What samples number `rows` are drawn for (labels, prompts), where the source has such a thing."""
    return source.conditions(rows) if isinstance(source, Conditional) else {}


def measured(spec: Spec) -> set[str]:
    """The metrics that the manifest asks for, by evaluation.metrics or by choosing the best checkpoint."""
    best = spec.checkpoints.keep.best
    return {*spec.evaluation.metrics, *([question(best.metric)] if best else [])}
