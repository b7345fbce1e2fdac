"""Samples by number: sample n of a seed is the same whatever else is drawn with it, and that of the run's own evaluation for its seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.data.chat_template import template_of
from trainjobs.data.conversation import Message
from trainjobs.evaluate.prompts import conditions_of
from trainjobs.evaluate.score import joined
from trainjobs.noise import Between, Noise
from trainjobs.objectives.batches import inference
from trainjobs.objectives.language.causal import LanguageObjective
from trainjobs.objectives.phase import Batch, Samples
from trainjobs.sampling.asked import data_of
from trainjobs.sampling.norms import settled
from trainjobs.sampling.opened import Opened, wanted


@dataclass(frozen=True)
class Drawn:
    """`told` says of each sample how it was made, as JSON; `rows` are the names of the rows of a sheet of them, sample by sample from the
    front again, and `steps` how many lead from one sample to the next, where there are such in between."""

    samples: Samples
    told: tuple[Mapping[str, Any], ...]
    rows: tuple[str, ...] = ()
    steps: int = 0


def drawn(found: Opened, count: int, seed: int, prompts: Sequence[str], device: torch.device, *, interpolate: int = 0) -> Drawn:
    """`count` samples for the prompts, one after the other and from the front again; with none, for those of an evaluation. With
    `interpolate` pictures in between, sample n of `count` leads to sample n + 1, for the prompt of the first.

    JobErrors GTJ0102 and GTJ0113 as of `conditions_of`; GTJ0108 for prompts of a model that has none, and for ways between texts.
    """
    role = wanted(found)
    asked = list(prompts) or ([] if role == "prompt" and causal(found) else found.prompts)
    if not asked and not causal(found):
        how = "give --prompt: a picture's file" if found.spec.learner == "captioner" else "give --prompt: a text"
        raise JobError("GTJ0108", "the model writes of something", where="--prompt", why="nothing is given", how=how)
    if prompts and not role:
        how = "take the prompt out, or train with diffusion.conditioning or gan.conditional"
        raise JobError("GTJ0108", "the model draws for nothing", where="--prompt", why="it was trained without a condition", how=how)
    if interpolate and found.spec.language:
        raise JobError("GTJ0108", "there is nothing between two texts", where="--interpolate", how="take it out")
    pieces, told = [], []
    with inference(found.model.modules, found.autocast(device)), settled(found, device):
        for rows, texts, noise in _turns(found, count, seed, asked, device, interpolate, _rows(found, prompts)):
            data = {name: value.to(device) for name, value in _data(found, role, texts).items()}
            pieces.append(found.model.objective.sample(Batch(data, noise, len(noise.samples), found.at)))
            told += [_told(found, row, seed, text) for row, text in zip(rows, texts or [""] * len(rows), strict=True)]
    if interpolate:
        return Drawn(joined(pieces), tuple(told), steps=interpolate + 1)
    return Drawn(joined(pieces), tuple(told), tuple(asked[: _rows(found, prompts)]))


def _rows(found: Opened, prompts: Sequence[str]) -> int:
    """How many rows a sheet has, in each of which pictures are drawn for one thing, and in each of whose columns with one noise: as the
    run's own, or one for each prompt; 0 where every sample has a noise of its own."""
    if found.spec.language:
        return 0
    return len(prompts) or int(found.drawing.get("rows", 0))


def causal(found: Opened) -> bool:
    """Whether it goes on from a prompt, or draws without any."""
    return found.spec.language is None or found.spec.language.task == "causal"


Turn = tuple[list[float], list[str], Noise]  # numbers of the samples, what each is for, and their noise


def _turns(found: Opened, count: int, seed: int, asked: list[str], device: torch.device, interpolate: int, sheet: int) -> Iterator[Turn]:
    """As many rows at a time as in the run's own evaluations; of texts only such as continue the same prompt."""
    steps = interpolate + 1
    total = count if not interpolate else (count - 1) * steps + 1
    start = 0
    while start < total:
        end = min(start + found.micro, total)
        if found.spec.language and asked:
            end = next((n for n in range(start + 1, end) if asked[n % len(asked)] != asked[start % len(asked)]), end)
        places = torch.arange(start, end, device=device)
        rows = places // steps
        noise = Noise.of(seed, 0, "samples", rows // max(1, sheet))
        if interpolate:
            noise = Between.of(noise.seed, places, steps)
        texts = [asked[row % len(asked)] for row in rows.tolist()] if asked else []
        yield [place / steps for place in range(start, end)], texts, noise
        start = end


def _data(found: Opened, role: str, texts: list[str]) -> Mapping[str, Tensor]:
    if not texts:
        return {}
    if role != "prompt":
        return conditions_of(texts, found.spec, found.info.classes, "--prompt")
    assert found.spec.language is not None
    assert found.info.tokenizer is not None
    if not causal(found):
        return data_of(found.spec.language.task, texts, found.info, found.spec.language.network.context_length)
    tokenizer, most = found.info.tokenizer, found.spec.language.network.context_length - 1
    begins = not isinstance(found.model.objective, LanguageObjective)  # which puts the beginning in front by itself
    if found.chats:
        template = template_of(tokenizer)
        tokens = [*template.begins, *template.render([Message("user", texts[0])], opened=True)]
    else:
        tokens = [*((list(tokenizer.before) or [tokenizer.end]) if begins else ()), *tokenizer.encode(texts[0])]
    if len(tokens) >= most:
        why = f"it has {len(tokens)} tokens, of the {most + 1} that the model sees at once"
        raise JobError("GTJ0113", "the prompt leaves no room for an answer", where="--prompt", why=why, how="shorten it")
    told = {"prompt": torch.tensor([tokens] * len(texts))}
    return {**told, "prompt_length": torch.full((len(texts),), len(tokens))} if begins else told


def _told(found: Opened, row: float, seed: int, text: str) -> dict[str, Any]:
    whole = int(row) if row == int(row) else round(row, 6)
    told: dict[str, Any] = {"sample": whole, "seed": seed}
    if text:
        told["prompt"] = text
    if found.spec.diffusion:
        sampler = found.spec.diffusion.sampler
        told |= {"sampler": sampler.name, "steps": found.spec.diffusion.evaluations, "eta": sampler.eta}
        told |= {"guidance": sampler.guidance} if found.spec.diffusion.conditioning or found.spec.diffusion.pretrained else {}
    return told
