"""A job's model before it is trained: as its manifest says, with what it needs beside it that was trained or drawn before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainjobs.api.job import Spec
from trainjobs.checkpointer.judges import with_judges
from trainjobs.checkpointer.teacher import with_teacher
from trainjobs.evaluate import class_images
from trainjobs.objectives.build import build
from trainjobs.objectives.diffusion.pipeline import PipelineObjective
from trainjobs.objectives.phase import Model
from trainjobs.world import World

if TYPE_CHECKING:
    from trainjobs.data.pretrained import Pretrained
    from trainjobs.data.source import DataInfo


def built(spec: Spec, info: DataInfo, base: Pretrained | None, world: World, run: Path, *, tell: Callable[[str], None]) -> Model:
    """The model, a teacher and models of rewards beside it where the manifest names them, and DreamBooth's pictures of the class, which the
    pipeline draws as it begins. Every rank must call it. `tell` is told what takes long.

    JobErrors of `build`, `with_teacher`, `with_judges` and `class_images.draw`.
    """
    model = with_judges(with_teacher(build(spec, info, base), spec, info, world, run), spec, world, run)
    if isinstance(model.objective, PipelineObjective) and base is not None:
        class_images.draw(model.objective, spec, base, world, run / "cache" / class_images.FOLDER, tell)
    return model
