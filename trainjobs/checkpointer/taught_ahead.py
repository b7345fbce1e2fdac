"""A teacher's likeliest tokens, asked once before the first step: language.distill.topK. Then it is no longer in memory.

Every process of a machine asks it a share of the samples. What it said lies in the cache, by the digests of the teacher and of the data as
tokens, and is asked again for nothing but what is missing there; or it lies in a place where it was prepared. The teacher's files are in
every commit, and a run goes on only with the same.
"""

from __future__ import annotations

import gc
import json
import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.checkpointer import taught_prepared
from trainjobs.checkpointer.taught import of_teacher, same_vocabulary
from trainjobs.checkpointer.taught_prepared import Taught, named
from trainjobs.checkpoints import open_store
from trainjobs.data import top_logits
from trainjobs.data.pretrained import Pretrained, opened, together
from trainjobs.data.source import Counted, Numbered, Source
from trainjobs.data.top_logits import CountedForetold, Foretold, Table, Teacher, content, learned, paths
from trainjobs.objectives.language.divergence import likeliest
from trainjobs.objectives.language.tokens import inputs
from trainjobs.objectives.precision import autocast
from trainjobs.world import World

SLOT = "teacher"  # of a commit's metadata
PREPARED = "prepared"  # of what it keeps of the teacher: the digest of answers that were made before


def foretold(
    spec: Spec, source: Source, cache: Path, world: World, before: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Source, dict[str, Any]]:
    """(the source, with what the teacher says where the manifest asks it once; what a commit keeps of the teacher). Every rank must call
    it; `before` is what the commit keeps that the run goes on from.

    JobErrors of with_language_teacher and of taught_prepared.found; GTJ0108 for more tokens than there are, GTJ0114 where the cache cannot
    be written, GTJ0208 where other answers were prepared than the commit's.
    """
    own = spec.language.distill if spec.language is not None and spec.language.method == "distill" else None
    if own is None or own.top_k is None:
        return source, {}
    assert isinstance(source, Numbered)
    asked = _question(spec, source, cache, world, before.get(SLOT))
    machine, account = world.gather(platform.node()), dict(asked.found.account)
    if own.prepared is not None:
        there: Taught = world.lead(taught_prepared.found, own.prepared, asked.told)
        account[PREPARED] = there.digest
        if before.get(SLOT, {}).get(PREPARED, there.digest) != there.digest:
            how = "put back what lay there, or start afresh with gtj run --fresh"
            where = f"{taught_prepared.WHERE}: {own.prepared}"
            raise JobError("GTJ0208", "the teacher's answers are others than the run began with", where=where, how=how)
        if list(there.computed) != list(asked.told.computed):
            words = "what the teacher says was computed by %s; asked here, by %s, it would differ in the last digits"
            logging.getLogger(__name__).warning(words, ", ".join(there.computed), ", ".join(asked.told.computed))
        train, held = paths(cache, there.digest, source, asked.told.data)
        asked = replace(asked, train=train, held=held)

    def ask() -> None:
        mine = [one for one in _share(asked.due, machine, world.rank) if not one.path.exists()]
        names = dict(named(asked.train, asked.held))
        for done, one in enumerate(mine):
            if own.prepared is not None:
                say(f"fetching what the teacher says {done}/{len(mine)}")
                taught_prepared.fetch(own.prepared, there, one.path, names[one.path])
            else:
                say(f"asking the teacher {done}/{len(mine)}")
                asked.write(one)

    together(world, ask)
    asked.forget()
    of = CountedForetold if isinstance(source, Counted) else Foretold
    return of(source, own.top_k, Table.read(asked.train, own.top_k), Table.read(asked.held, own.top_k)), {SLOT: account}


def prepared(spec: Spec, source: Source, cache: Path, uri: str, world: World, show: Callable[[int, int], None]) -> tuple[int, int]:
    """Put all that the teacher says of a source into a place, where runs find it. (How many files there are, how many were there); `show`
    is told (how many are done, of how many). JobErrors of `foretold` and of taught_prepared.store."""
    assert isinstance(source, Numbered)
    asked = _question(spec, source, cache, world, None)
    due, pieces = named(asked.train, asked.held), asked.due
    before = taught_prepared.store(
        open_store(uri), asked.told, due, lambda number: asked.write(pieces[number]), lambda done: show(done, len(due))
    )
    return len(due), before


@dataclass(frozen=True)
class Piece:
    """A file of samples, the training ones or those held out."""

    path: Path
    number: int
    held: bool


@dataclass
class Question:
    """What is asked of a teacher. It is loaded when it is first asked."""

    spec: Spec
    source: Numbered
    found: Pretrained
    told: Taught
    train: list[Path]
    held: list[Path]
    device: torch.device
    teacher: nn.Module | None = None

    @property
    def due(self) -> list[Piece]:
        return [Piece(path, number, side) for side, files in ((False, self.train), (True, self.held)) for number, path in enumerate(files)]

    def write(self, one: Piece) -> None:
        if self.teacher is None:
            self.teacher = _loaded(self.found, self.spec, self.device)
        size, k = int(self.told.asked["vocabulary"]), int(self.told.asked["k"])
        said = _asked(self.teacher, self.spec, size, self.device)
        top_logits.write(one.path, self.source, one.number, said, k, held=one.held, vocabulary=size)

    def forget(self) -> None:
        self.teacher = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _question(spec: Spec, source: Numbered, cache: Path, world: World, before: Mapping[str, Any] | None) -> Question:
    assert spec.language is not None
    assert source.info.tokenizer is not None
    own, size = spec.language.distill, source.info.tokenizer.vocabulary
    k = own.top_k
    assert k is not None
    if k > size:
        what, how = f"topK {k:,} of a vocabulary of {size:,}", f"lower it to {size:,}, or take it out to ask the teacher at every step"
        raise JobError("GTJ0108", what, where="language.distill.topK", how=how)
    with of_teacher():
        found = opened(own.teacher, cache, world, before)
        assert found is not None
        same_vocabulary(found, source.info.tokenizer)
    asked = {"teacher": found.digest, "k": k, "vocabulary": size, "temperature": own.temperature, "precision": spec.training.precision}
    computed = [world.device.type, *(metadata.version(name) for name in ("torch", "transformers"))]
    data = content(source)
    train, held = paths(cache, json.dumps([asked, computed], sort_keys=True), source, data)
    told = Taught({**asked, "part": top_logits.PART}, data, computed, len(train) + len(held))
    return Question(spec, source, found, told, train, held, world.device)


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
