"""The networks of a job, and what trains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from trainjobs.api.job import NOISE_SCHEDULE, Spec
from trainjobs.models.batch_norm_together import synchronise
from trainjobs.models.recomputing import recompute
from trainjobs.objectives import custom, vae
from trainjobs.objectives.diffusion import build as diffusion
from trainjobs.objectives.gan import build as gan
from trainjobs.objectives.language import build as language
from trainjobs.objectives.phase import Model

if TYPE_CHECKING:
    from trainjobs.data.pretrained import Pretrained
    from trainjobs.data.source import DataInfo

    Build = Callable[[Spec, DataInfo], Model]

FAMILIES: dict[str, Build] = {
    "gan": gan.build,
    "vae": vae.build,
    "diffusion": diffusion.build,
    "language": language.build,
    "custom": custom.build,
}


def build(spec: Spec, info: DataInfo, base: Pretrained | None = None) -> Model:
    """The networks, by name, with random weights from torch's global generator, which the caller seeds, and what trains them.
    `base` is the trained model that the job goes on from, where it does.

    JobError GTJ0108 when family and data do not go together, GTJ0102 when a custom objective cannot be imported, GTJ0214 when it raises.
    """
    made = FAMILIES[spec.family](spec, info if base is None else replace(info, base=base))
    if spec.training.gradient_checkpointing:
        trained = {phase.trains for phase in made.objective.phases} - {NOISE_SCHEDULE}
        for name in sorted(trained):
            recompute(name, made.modules[name])
    if spec.training.sync_batch_norm:
        synchronise(made.modules)
    return made
