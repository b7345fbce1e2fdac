"""A job's model before it is trained: as its manifest says, with what it needs beside it that was trained or drawn before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainjobs.api.job import Spec
from trainjobs.checkpointer.judges import with_judges
from trainjobs.checkpointer.teacher import with_teacher
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.evaluate import class_images
from trainjobs.objectives.build import build
from trainjobs.objectives.diffusion.pipeline import PipelineObjective
from trainjobs.objectives.language.attending import attended
from trainjobs.objectives.phase import Model
from trainjobs.run import progress
from trainjobs.world import World

if TYPE_CHECKING:
    from trainjobs.data.pretrained import Pretrained
    from trainjobs.data.source import DataInfo


def built(spec: Spec, info: DataInfo, base: Pretrained | None, world: World, run: Path, *, tell: Callable[[str], None]) -> Model:
    """The model, a teacher and models of rewards beside it where the manifest names them, and DreamBooth's pictures of the class, which the
    pipeline draws as it begins. Every rank must call it. `tell` is told what takes long, which attention was chosen, and where
    what is drawn ends.

    JobErrors of `build`, `attended`, `with_teacher`, `with_judges` and `class_images.draw`.
    """
    model, attention = attended(build(spec, info, base), spec, world.device)
    if attention:
        tell(f"attention: {attention}")
        if world.leads:
            progress.update(run, attention=attention)
    if ends := ended(spec, info):
        tell(f"what is drawn ends at {ends}")
        if world.leads:
            progress.update(run, ends=ends)
    model = with_judges(with_teacher(model, spec, info, world, run), spec, world, run)
    if isinstance(model.objective, PipelineObjective) and base is not None:
        class_images.draw(model.objective, spec, base, world, run / "cache" / class_images.FOLDER, tell)
    return model


def ended(spec: Spec, info: DataInfo) -> str:
    """The tokens at which what a language model draws is over, where a base says which; else ""."""
    if spec.language is None or spec.language.task != "causal" or not isinstance(info.tokenizer, PretrainedTokenizer):
        return ""
    return ", ".join(str(info.tokenizer.inner.id_to_token(end)) for end in info.tokenizer.ends)
