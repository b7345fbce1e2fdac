"""A teacher's likeliest tokens, asked once before the first step: language.distill.topK. Then it is no longer in memory.

Every process of a machine asks it a share of the samples. What it said lies in the cache, by the digests of the teacher and of the data as
tokens, and is asked again for nothing but what is missing there. The teacher's files are in every commit, and a run goes on only with the
same.
"""

from __future__ import annotations

import gc
import json
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.checkpointer.taught import of_teacher, same_vocabulary
from trainjobs.data import top_logits
from trainjobs.data.pretrained import Pretrained, opened, together
from trainjobs.data.source import Counted, Numbered, Source
from trainjobs.data.top_logits import CountedForetold, Foretold, Table, Teacher, learned, paths
from trainjobs.objectives.language.divergence import likeliest
from trainjobs.objectives.language.tokens import inputs
from trainjobs.objectives.precision import autocast
from trainjobs.world import World

SLOT = "teacher"  # of a commit's metadata


def foretold(
    spec: Spec, source: Source, cache: Path, world: World, before: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Source, dict[str, Any]]:
    """(the source, with what the teacher says where the manifest asks it once; what a commit keeps of the teacher). Every rank must call
    it; `before` is what the commit keeps that the run goes on from.

    JobErrors of with_language_teacher; GTJ0108 for more tokens than there are, GTJ0114 where the cache cannot be written.
    """
    own = spec.language.distill if spec.language is not None and spec.language.method == "distill" else None
    if own is None or own.top_k is None:
        return source, {}
    assert isinstance(source, Numbered)
    assert source.info.tokenizer is not None
    k, size = own.top_k, source.info.tokenizer.vocabulary
    if k > size:
        what, how = f"topK {k:,} of a vocabulary of {size:,}", f"lower it to {size:,}, or take it out to ask the teacher at every step"
        raise JobError("GTJ0108", what, where="language.distill.topK", how=how)
    with of_teacher():
        found = opened(own.teacher, cache, world, before.get(SLOT))
        assert found is not None
        same_vocabulary(found, source.info.tokenizer)
    asked = {"teacher": found.digest, "k": k, "vocabulary": size, "temperature": own.temperature, "precision": spec.training.precision}
    computed = [world.device.type, *(metadata.version(name) for name in ("torch", "transformers"))]
    train, held = paths(cache, json.dumps([asked, computed], sort_keys=True), source)
    due = [(path, number, side) for side, files in ((False, train), (True, held)) for number, path in enumerate(files)]

    def ask() -> None:
        mine = [one for one in _share(due, machine, world.rank) if not one[0].exists()]
        if not mine:
            return
        teacher = _loaded(found, spec, world.device)
        for done, (path, number, side) in enumerate(mine):
            say(f"asking the teacher {done}/{len(mine)}")
            top_logits.write(path, source, number, _asked(teacher, spec, size, world.device), k, held=side, vocabulary=size)

    machine = world.gather(platform.node())
    together(world, ask)
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
    of = CountedForetold if isinstance(source, Counted) else Foretold
    return of(source, k, Table.read(train, k), Table.read(held, k)), {SLOT: found.account}


def _share(due: list[Any], machine: list[str], rank: int) -> list[Any]:
    """What a rank does of what is due on its machine; `machine` is of every rank."""
    here = [other for other, name in enumerate(machine) if name == machine[rank]]
    return due[here.index(rank) :: len(here)]


def _loaded(found: Pretrained, spec: Spec, device: torch.device) -> nn.Module:
    from trainjobs.models.pretrained import load

    assert spec.language is not None
    with of_teacher():
        teacher = load(found, half=spec.training.precision == "bf16", context=spec.language.network.context_length)
    return teacher.requires_grad_(False).eval().to(device)


def _asked(teacher: nn.Module, spec: Spec, size: int, device: torch.device) -> Teacher:
    """As the loss would ask it."""
    assert spec.language is not None
    own = spec.language.distill
    assert own.top_k is not None
    k = own.top_k

    def said(samples: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        rows = {name: value.to(device) for name, value in samples.items()}
        if "labels" not in rows:
            rows = {"tokens": rows["tokens"][:, :-1]}
        with torch.no_grad(), autocast(spec.training.precision, device):
            logits_BLV = teacher(**inputs(rows)).logits
        logits_NV = logits_BLV[learned(samples).to(device)][:, :size].float()
        return likeliest(logits_NV, k, own.temperature)

    return said
