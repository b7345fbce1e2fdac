"""What weights belong to: a digest of what shapes them, where their checkpoints are, and the versions that made them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainjobs.api.job import NETWORKS, Job, Spec

DISTRIBUTIONS = ("gentrain", "torch", "deepspeed", "ray", "transformers", "tokenizers", "numpy")


def model_digest(spec: Spec) -> str:
    """Equal for two jobs exactly when one can load the other's weights, optimizer state and moving average."""
    family = spec.family
    networks = NETWORKS.get(family, ("default",))
    shape = {
        family: getattr(spec, family).model_dump(mode="json", by_alias=True),
        "optimizers": {name: spec.training.optimizer(name).name for name in networks},
        "ema": spec.training.ema is not None,
        "precision": spec.training.precision,
        "images": spec.data.images.model_dump(mode="json", include={"size", "channels"}),
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:32]


def essentials(spec: Spec) -> dict[str, Any]:
    """What a reader of weights must know of the job, as its manifest says it. Of a custom job no options: they may hold anything."""
    family = getattr(spec, spec.family).model_dump(mode="json", by_alias=True, exclude={"options"})
    return {spec.family: family, "images": spec.data.images.model_dump(mode="json", include={"size", "channels"})}


def store_uri(job: Job, run: Path) -> str:
    """The prefix of the job's checkpoints: below the manifest's URI by uid or name, else in the run folder."""
    if job.spec.checkpoints.uri is None:
        return f"file://{run.resolve()}/checkpoints"
    return f"{job.spec.checkpoints.uri.rstrip('/')}/{job.metadata.uid or job.metadata.name}"


def versions() -> dict[str, str]:
    """Versions of what computes, as recorded in checkpoints and reports."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def frozen_digest(networks: Mapping[str, nn.Module]) -> str | None:
    """A digest of all weights that are not trained, which checkpoints leave out; None when there are none. Before DeepSpeed splits them."""
    found = hashlib.sha256()
    any_frozen = False
    for name, network in sorted(networks.items()):
        for path, parameter in network.named_parameters():
            if not parameter.requires_grad:
                any_frozen = True
                found.update(f"{name}.{path} {parameter.dtype} {tuple(parameter.shape)}".encode())
                found.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{found.hexdigest()}" if any_frozen else None
