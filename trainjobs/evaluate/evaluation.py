"""Looking at a model in training: scores and a few samples. Every rank draws and measures its share, rank 0 keeps the samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.evaluation import SAMPLES
from trainjobs.api.job import Spec
from trainjobs.api.metrics import LIVE, WITH_LOSS, question
from trainjobs.api.quality import decisive, pictures, qualities
from trainjobs.data import ring
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.source import Conditional, Source, squares
from trainjobs.evaluate.active_units import ActiveUnits
from trainjobs.evaluate.coverage import ModeCoverage
from trainjobs.evaluate.heldout import Heldout
from trainjobs.evaluate.instance import WORD, instance, rows_of
from trainjobs.evaluate.latent_scale import measure
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.prompts import account, prompted, role
from trainjobs.evaluate.quality import Quality
from trainjobs.evaluate.rows import names_of, numbers
from trainjobs.evaluate.score import Alongside, Score, joined
from trainjobs.evaluate.setting import Setting
from trainjobs.evaluate.spread import DISTANCE, MOVED, SPREAD, Memory, Spread
from trainjobs.evaluate.winning import WIN_RATE, Contending, Won
from trainjobs.evaluate.writing import WORDS, Writing, Written
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch, Encoding, Objective, Samples
from trainjobs.objectives.vae import LatentObjective
from trainjobs.plan.beside import passes

BATCHES, ROWS = 16, 64  # samples of which batch norm's statistics are for an average (running_norms.py)
WATCHED = (SPREAD, MOVED, DISTANCE)  # of a GAN, asked for or not


def evaluation(setting: Setting, at: At, samples: int = SAMPLES) -> tuple[dict[str, float], Samples]:
    """Scores ("heldout/loss", "modes", ...), equal on every rank, and `samples` that are the same at every step but for the weights; on
    rank 0 all of them, elsewhere none."""
    spec, world, looking = setting.spec, setting.world, Looking(setting.tell, passes(setting.spec))
    wanted = measured(spec)
    scores: dict[str, float] = {}
    with setting.inference(), looking.listening(setting.networks):
        if setting.compared is not None:
            setting.compared.prepare(setting.micro, looking)
        for score in [*asked_for(spec, setting.source, setting.objective, wanted, setting.before), *of_pictures(setting, at)]:
            look(score, setting, at, looking)
            for made in drawn(setting, at, score.generated, 1, looking):
                score.add(None, made)
            scores |= score.result(world)
        if WORD in wanted:
            scores |= instance(setting, at, looking)
        if isinstance(setting.objective, LatentObjective):
            measure(setting, setting.objective, at, looking)
    return chosen(scores, wanted), shown(setting, at, samples)


def shown(setting: Setting, at: At, samples: int = SAMPLES) -> Samples:
    """The samples alone."""
    looking = Looking(setting.tell, passes(setting.spec))
    with setting.inference(), looking.listening(setting.networks):
        pieces = list(drawn(setting, at, samples, 0, looking))
    turns = setting.world.collect(pieces)  # rank by rank; a turn's rows lie rank by rank, too
    return joined([share[turn] for turn in range(max(map(len, turns), default=0)) for share in turns if turn < len(share)])


def of_pictures(setting: Setting, at: At) -> list[Score]:
    """The score of pictures by their features, where it is asked for."""
    return [Quality(setting.compared, at, setting.tell)] if setting.compared is not None else []


def live(setting: Setting, at: At) -> dict[str, float]:
    """The held-out scores of the weights themselves, for beside those of their average: "heldout/loss/live"; equal on every rank."""
    score, looking = Heldout(setting.objective.heldout), Looking(setting.tell, passes(setting.spec))
    with setting.inference(), looking.listening(setting.networks):
        look(score, setting, at, looking)
    return {f"{name}{LIVE}": value for name, value in chosen(dict(score.result(setting.world)), measured(setting.spec)).items()}


def look(score: Score, setting: Setting, at: At, looking: Looking) -> None:
    """Show a score the held-out samples that it wants, this rank's share."""
    for rows, counts in looking.turns("evaluating", min(score.heldout, setting.source.info.heldout), setting.micro, setting.world):
        batch = setting.heldout(rows, at)
        if counts:
            score.add(batch, None)
        elif isinstance(score, Alongside):
            score.alongside(batch)
        else:
            setting.objective.heldout(batch)  # the other ranks need this one's share of the weights


def chosen(scores: dict[str, float], wanted: set[str]) -> dict[str, float]:
    """Of what was measured, and what follows from it, that which the manifest wants to know."""
    if "heldout/loss" in scores:
        scores["heldout/perplexity"] = math.exp(min(scores["heldout/loss"], 700.0))
    beside = {*WATCHED, *(WITH_LOSS if "loss" in wanted else ())}
    return {name: value for name, value in scores.items() if question(name) in wanted or name in beside}


def looked_at(spec: Spec, source: Source, objective: Objective) -> tuple[int, int]:
    """How many held-out samples an evaluation looks at, and how many it draws for its scores."""
    scores = asked_for(spec, source, objective, measured(spec), Memory())
    more = pictures(spec) if qualities(spec) else 0
    again = rows_of(source.info.length) if WORD in measured(spec) else 0
    return again + sum(min(score.heldout, source.info.heldout) for score in scores), sum(score.generated for score in scores) + more


def asked_for(spec: Spec, source: Source, objective: Objective, wanted: set[str], before: Memory | None = None) -> Sequence[Score]:
    """The scores that give what the manifest wants to know; and of a GAN, with `before`, what its watches look at."""
    scores: list[Score] = [Heldout(objective.heldout)]
    if isinstance(objective, Encoding) and "active_units" in wanted:
        scores.append(ActiveUnits(objective.latents))
    if isinstance(objective, Writing) and {*WORDS} & wanted:
        scores.append(Written(objective))
    if isinstance(objective, Contending) and objective.contest is not None and WIN_RATE in wanted:
        scores.append(Won(objective.contest))
    if spec.gan is not None and before is not None:
        scores.append(Spread(before))
    if source.info.modes is not None and "modes" in wanted:
        scores.append(ModeCoverage(source.info.modes, ring.SIGMA))
    return scores


def drawn(setting: Setting, at: At, count: int, series: int, looking: Looking | None = None) -> Iterator[Samples]:
    """This rank's share of `count` samples of a series (0: those that are shown), piece by piece. Sample n is the same on any number of
    ranks: its noise and its conditions go by n. Those that are shown have the noise of their column (rows.py)."""
    looking, device = looking or Looking(), setting.world.device
    for rows, counts in looking.turns(f"drawing {count} samples,", count, setting.micro, setting.world, looking.passes):
        own = numbers(rows, names_of(setting.spec, setting.source.info)) if series == 0 else rows
        noise = Noise.of(setting.spec.training.seed, series, "samples", own.to(device))
        told = asked(setting.spec, setting.source, rows, shown=series == 0)
        data = {name: value.to(device) for name, value in told.items()}
        made = setting.objective.sample(Batch(data, noise, len(rows), at))
        if counts:
            yield made


def asked(spec: Spec, source: Source, rows: Tensor, *, shown: bool = True) -> Mapping[str, Tensor]:
    """What samples number `rows` are drawn for: the manifest's prompts, or what held-out samples are of. By classes those that are
    `shown` are of one after the other."""
    if spec.language is not None and not spec.reads_text:
        return pictured(spec, source, rows)
    found = prompted(spec, source.info, rows)
    if found is None and shown and (names := names_of(spec, source.info)):
        return {"label": rows % len(names)}
    return conditions(source, rows) if found is None else found


def pictured(spec: Spec, source: Source, rows: Tensor) -> Mapping[str, Tensor]:
    """Held-out pictures, one after the other and from the front again, of which captions are to be written; without any, training ones."""
    if source.info.heldout:
        return source.heldout_batch(rows % source.info.heldout)
    places = rows % source.info.length
    return squares(source).batch(places, spec.training.seed, Noise.of(spec.training.seed, 0, "shown", places))


def drawing(spec: Spec, source: Source, micro: int) -> dict[str, Any]:
    """What a commit keeps so that its samples can be drawn again without the data: JSON."""
    count = len(spec.evaluation.prompts) or spec.evaluation.samples or SAMPLES
    conditional = spec.gan is not None and spec.gan.conditional
    if names := names_of(spec, source.info):
        count = len(names)  # whatever is drawn more begins with the first again
    if spec.language is not None and not spec.reads_text:
        found: Mapping[str, Tensor] = {}  # pictures are no words
    else:
        found = asked(spec, source, torch.arange(count)) if role(spec) or (spec.language and spec.language.task != "causal") else {}
    labels = conditions(source, torch.arange(BATCHES * ROWS))["label"].tolist() if conditional else []
    told = account(spec, source.info, found)
    if source.info.tokenizer is not None and "seen" in found:
        rows = zip(found.get("source", found.get("tokens", found["seen"])), found["seen"].bool(), strict=True)
        told |= {"for": [source.info.tokenizer.decode(row[seen].tolist()) for row, seen in rows]}
    told |= {"chat": True} if chats(source) else {}
    return {**told, "micro": micro, **({"labels": labels} if labels else {}), **({"rows": len(names)} if names else {})}


def chats(source: Source) -> bool:
    """Whether records are conversations, or prompts are messages. No text encodes to a special token, so a prompt that has one behind its
    beginning was written by a chat template."""
    info = source.info
    if info.form not in ("prompts", "preference", "pair") or info.tokenizer is None:
        return info.form == "chat"
    special = info.tokenizer.special if isinstance(info.tokenizer, PretrainedTokenizer) else info.tokenizer.ends
    first = conditions(source, torch.arange(1))
    if "prompt" not in first:
        return False
    behind = first["prompt"][0, max(1, len(info.tokenizer.before)) : int(first["prompt_length"][0])]
    return any(token in special for token in behind.tolist())


def conditions(source: Source, rows: Tensor) -> Mapping[str, Tensor]:
    """What samples number `rows` are drawn for (labels, prompts), where the source has such a thing."""
    return source.conditions(rows) if isinstance(source, Conditional) else {}


def measured(spec: Spec) -> set[str]:
    """The metrics that the manifest asks for, by evaluation.metrics, by choosing the best checkpoint, or because the run
    follows them."""
    return {*spec.evaluation.metrics, *map(question, decisive(spec))}
