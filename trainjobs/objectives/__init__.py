"""Losses as phases: one module per family. `build` makes the networks and the objective of a job."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.models import build_networks
from trainjobs.objectives.diffusion import DiffusionObjective
from trainjobs.objectives.gan import GanObjective
from trainjobs.objectives.language import LanguageObjective
from trainjobs.objectives.phase import Objective
from trainjobs.objectives.vae import VaeObjective

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def build(spec: Spec, info: DataInfo) -> tuple[dict[str, nn.Module], Objective]:
    """The networks, by name, with random weights from torch's global generator, which the caller seeds, and what trains them.

    JobError GTJ0108 when family and data do not go together, GTJ0102 when a custom objective cannot be imported, GTJ0214 when it raises.
    """
    if spec.custom is not None:
        return build_custom(spec, info)
    networks = build_networks(spec, info)
    return networks, build_objective(spec, info, networks)


def build_objective(spec: Spec, info: DataInfo, networks: dict[str, nn.Module]) -> Objective:
    """The objective of any family but custom, over the networks that `build_networks` made of the same spec."""
    if spec.gan is not None:
        assert info.kind != "text"
        return GanObjective(networks["generator"], networks["discriminator"], spec.gan.loss, spec.gan.generator.latent_dim, info.kind)
    if spec.vae is not None:
        assert info.kind != "text"
        return VaeObjective(networks["autoencoder"], spec.vae.loss, spec.vae.network.latent_dim, info.kind)
    if spec.diffusion is not None:
        return DiffusionObjective(networks["denoiser"], spec.diffusion.process, spec.diffusion.sampler, info.shape)
    assert spec.language is not None, "a custom objective comes with its networks"
    assert info.tokenizer is not None
    return LanguageObjective(networks["model"], info.tokenizer, spec.language.network.context_length)


def build_custom(spec: Spec, info: DataInfo) -> tuple[dict[str, nn.Module], Objective]:
    """What the user's own `build(spec, info)` returns, checked."""
    assert spec.custom is not None
    path = spec.custom.objective
    module, _, function = path.partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise JobError(
            "GTJ0102",
            f"{path} cannot be imported",
            where="custom.objective",
            why=str(error),
            how='Give "package.module:build" of a module on PYTHONPATH',
        ) from error
    result = make(spec, info)
    try:
        networks, objective = result
        names = set(networks)
        trained = {phase.trains for phase in objective.phases}
    except (TypeError, ValueError, AttributeError) as error:
        raise JobError(
            "GTJ0214",
            f"{path} did not return (networks, objective)",
            where="custom.objective",
            why=str(error),
            how="Return a dict of torch modules and an object with phases, heldout and sample",
        ) from error
    if not trained <= names:
        raise JobError(
            "GTJ0214",
            f"{path} trains {', '.join(sorted(trained - names))}, which is not among its networks",
            where="custom.objective",
            how=f"Its networks are {', '.join(sorted(names))}; Phase.trains names one of them",
        )
    return networks, objective
