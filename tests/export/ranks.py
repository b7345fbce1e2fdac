"""Checkpoints of known tensors, as any number of ranks would save them: cut at odd places, each rank with buffers of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, Commit, open_store
from trainjobs.checkpoints.tensors import INDEX, Layout, Slice, encode_index, layout
from trainjobs.engine.parts import NAMES

UNET = {"diffusion": {"network": {"channels": 8}}, "images": {"size": 8, "channels": 1}}


def saved(
    folder: Path,
    networks: Mapping[str, Mapping[str, Tensor]],
    *,
    world: int = 3,
    ema: bool = False,
    averaged: list[str] | None = None,
    spec: Mapping[str, Any] = UNET,
    beside: Mapping[str, bytes] | None = None,
    lost: int = 0,
    uri: str = "",
    more: Mapping[str, Any] | None = None,
) -> tuple[Checkpoints, Commit]:
    """A checkpoint of step 7. Keys of a network are those of a checkpoint: "fp32/weight", "buffer/count". The last `lost` elements are
    in no file. `uri` is where it goes, by default a folder below `folder`; `more` is what the commit keeps besides."""
    checkpoints = Checkpoints(open_store(uri or f"file://{folder}/store"), keep=Keep())
    attempt = checkpoints.begin()
    prefix = checkpoints.prefix(7, attempt)
    digests = []
    for rank in range(world):
        files: dict[str, Path] = {}
        layouts: dict[str, Layout] = {}
        for name, tensors in networks.items():
            parts = [part(key, tensor, rank, world, lost) for key, tensor in tensors.items()]
            contents = {slice.key: data for slice, data in parts if slice.length or not slice.shape or 0 in slice.shape}
            found = layout(slice for slice, _ in parts if slice.key in contents)
            layouts[f"{name}.safetensors"] = found
            files[f"{name}.safetensors"] = write(
                folder, f"{name}-{rank}", found.header + b"".join(contents[slice.key] for slice in found.slices)
            )
        files[INDEX] = write(folder, f"index-{rank}", encode_index(layouts))
        for name, data in (beside or {}).items():
            if rank == 0:
                files[name] = write(folder, name, data)
        digests.append(checkpoints.put_shard(prefix, rank, files))
    counts = {name: sum(key.startswith("fp32/") for key in tensors) for name, tensors in networks.items()}
    metadata = {"parameters": counts, "ema": ema, "spec": dict(spec), "versions": {"gentrain": "0.1.0", "platform": "mine"}}
    metadata |= ({} if averaged is None else {"averaged": averaged}) | dict(more or {})
    commit = checkpoints.commit(prefix, attempt=attempt, step=7, samples=56, digests=digests, metadata=metadata, metrics={})
    return checkpoints, commit


def part(key: str, tensor: Tensor, rank: int, world: int, lost: int) -> tuple[Slice, bytes]:
    """Of a buffer the whole, changed by the rank; else elements from rank * n / world on."""
    flat = tensor.detach().contiguous().reshape(-1)
    begin, end = flat.numel() * rank // world, min(flat.numel() * (rank + 1) // world, flat.numel() - lost)
    if key.startswith("buffer/"):
        flat, begin, end = flat + rank, 0, flat.numel()
    piece = flat[begin:end]
    return Slice(key, NAMES[tensor.dtype], tuple(tensor.shape), begin, end - begin), piece.view(torch.uint8).numpy().tobytes()


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / "staged" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
