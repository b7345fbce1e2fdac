"""Batch norm's statistics in what is exported: those of the average, for whoever loads the files without Gentrain.

The statistics in a checkpoint are of the live weights, and `gtj sample` estimates those of their average again each time
(evaluate/running_norms.py). A plain loader does not; so in an export of the average the same estimates stand in their place. Batches are
normalised by their own mean and variance while it is estimated, so what is drawn of such an export is the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainjobs.evaluate.running_norms import noise, of_samples
from trainjobs.export.export import FACTS
from trainjobs.export.huggingface import text
from trainjobs.objectives.phase import Batch
from trainjobs.sampling.opened import Opened, opened

BUFFERS = (".running_mean", ".running_var")


def settled(found: Opened, device: torch.device) -> AbstractContextManager[None]:
    """In the block, entered in inference, batch norm of averaged networks has statistics of samples of the average."""
    averaged = found.facts.get("weights") == "ema"
    networks = [network.module for network in found.model.networks.values() if network.averaged and averaged]

    def draw(rows: Tensor) -> None:
        data = {"label": torch.tensor(labels, device=device)[rows]} if (labels := found.drawing.get("labels")) else {}
        found.model.objective.sample(Batch(data, noise(found.spec, rows, device), len(rows), found.at))

    return of_samples(networks, draw, nullcontext)


def write(folder: Path, where: str, job: Mapping[str, Any] | None = None) -> None:
    """Put them into the files of an export of the average, which is changed where it lies. `where` names it in messages, `job` is the
    manifest's spec, without which nobody can build a model of the user's own. JobErrors of `opened`."""
    facts = json.loads((folder / FACTS).read_bytes())
    files = {folder / file: name for name, listed in facts["networks"].items() for file in listed}
    device = torch.device("cpu")
    found = opened(folder, where, job, device)
    with torch.no_grad(), found.autocast(device), settled(found, device):
        for path, name in files.items():
            tensors, buffers = load_file(path), dict(found.model.modules[name].named_buffers())
            new = {key: buffers[key].to(value.dtype) for key, value in tensors.items() if key.endswith(BUFFERS) and key in buffers}
            if new and name in facts["averaged"]:
                save_file({key: value.contiguous() for key, value in {**tensors, **new}.items()}, path, metadata={"format": "pt"})
    (folder / FACTS).write_bytes(text({**facts, "statistics": "average"}))
