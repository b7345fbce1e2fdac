"""The teacher of a language model that is distilled from one of transformers' own: language.distill.teacher, found as language.base is.

It is frozen and in no checkpoint. The digest of its files is in every commit, and a run goes on only with the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.pretrained import CONFIG, Pretrained, opened
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.pretrained_tokenizer import read as read_tokenizer
from trainjobs.data.tokens import TRAINED, Tokenizer
from trainjobs.objectives.distillation import TEACHER
from trainjobs.objectives.language.distilling import DistillObjective, projected
from trainjobs.objectives.phase import Model, Network
from trainjobs.world import World

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo

WHERE = "language.distill.teacher"


def with_language_teacher(model: Model, spec: Spec, info: DataInfo, world: World, scratch: Path) -> Model:
    """The model and its teacher. Every rank must call it. JobErrors of `opened`, told of the teacher; GTJ0108 for one of another
    vocabulary, GTJ0109 for one that cannot be used."""
    from trainjobs.models.pretrained import load

    objective, language, tokenizer = model.objective, spec.language, info.tokenizer
    assert isinstance(objective, DistillObjective)
    assert language is not None
    assert tokenizer is not None
    with of_teacher():
        found = opened(language.distill.teacher, scratch / "cache", world)
        assert found is not None
        same_vocabulary(found, tokenizer)
        teacher = load(found, half=spec.training.precision == "bf16", context=language.network.context_length)
    teacher.requires_grad_(False)
    student = projected(objective, int(teacher.config.get_text_config().hidden_size))  # type: ignore[operator, union-attr]
    networks = {name: replace(network, module=student) if name == "model" else network for name, network in model.networks.items()}
    networks[TEACHER] = Network(teacher, {}, averaged=False, origin=found.digest)
    return replace(model, networks=networks, objective=replace(objective, model=student, teacher=teacher))


@contextmanager
def of_teacher() -> Iterator[None]:
    """JobErrors that are said of a base, told of the teacher."""
    try:
        yield
    except JobError as error:
        where = error.where.replace("language.base", WHERE)
        what, why, how = (words.replace("the base", "the teacher") for words in (error.what, error.why, error.how))
        raise JobError(error.code, what, where=where, why=why, how=how.replace("language.base", WHERE)) from error


def same_vocabulary(teacher: Pretrained, tokenizer: Tokenizer) -> None:
    """See that a token of the student's means the same to the teacher. JobError GTJ0108."""
    config = teacher.json(CONFIG)
    size = (config.get("text_config") or config).get("vocab_size")
    why = ""
    if isinstance(tokenizer, PretrainedTokenizer) and TRAINED in teacher.files:
        theirs, ours = (found.inner.get_vocab() for found in (read_tokenizer(teacher), tokenizer))
        differing = sorted({*theirs.items()} ^ {*ours.items()}, key=lambda item: (item[1], item[0]))
        why = f"{differing[0][0]!r} is token {differing[0][1]} of one of them alone" if differing else ""
    if not why and isinstance(size, int) and size < tokenizer.vocabulary:
        why = f"it has {size:,} tokens, the student's tokenizer {tokenizer.vocabulary:,}"
    elif not why and not isinstance(tokenizer, PretrainedTokenizer) and size != tokenizer.vocabulary:
        why = f"it has {size} tokens, the student's tokenizer {tokenizer.vocabulary:,}"
    if why:
        how = "distil into a base with the teacher's tokenizer (one of few layers, with random weights, will do), or take another teacher"
        raise JobError("GTJ0108", "the teacher is of another vocabulary", where=f"{WHERE}.source: {teacher.uri}", why=why, how=how)
