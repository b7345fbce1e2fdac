"""Whole tensors, out of what the ranks of restored.py have left."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BEFORE = Path(__file__).with_name("before")
CASES = sorted(path.name for path in BEFORE.glob("*"))
WORKER = str(Path(__file__).with_name("restored.py"))


def digest(tensor: Tensor) -> str:
    bits = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} {hashlib.sha256(bits).hexdigest()}"


def restored(run: Path, size: int) -> dict[str, Any]:
    """What `size` workers have restored in this run, in the form of expected.json: tensors as digests by `<network>/<kind>/<parameter>`.

    Buffers differ from rank to rank: those of other ranks than 0 are called `rank 1: <network>/...`. Of everything else that several ranks
    have, they must have the same.
    """
    ranks = [torch.load(run / f"restored-{size}-{rank}.pt") for rank in range(size)]
    tensors: dict[str, Tensor] = {}
    there: dict[str, Tensor] = {}  # which elements
    for rank, found in enumerate(ranks):
        for key, shape, start, elements in found["pieces"]:
            name = f"rank {rank}: {key}" if "/buffer/" in key and rank else key
            whole = tensors.setdefault(name, torch.empty(shape, dtype=elements.dtype)).reshape(-1)
            known = there.setdefault(name, torch.zeros(whole.numel(), dtype=torch.bool))
            span = slice(start, start + elements.numel())
            assert whole[span][known[span]].equal(elements[known[span]]), f"{name} differs between ranks"
            whole[span], known[span] = elements, True
    assert all(bool(known.all()) for known in there.values()), [name for name, known in there.items() if not known.all()]
    told = [{name: found[name] for name in ("step", "samples", "objective", "losses")} for found in ranks]
    assert all(other == told[0] for other in told)
    return {**told[0], "tensors": {name: digest(tensor) for name, tensor in sorted(tensors.items())}}


def of_size(expected: dict[str, Any], size: int) -> dict[str, Any]:
    """What so many workers should restore: one worker has no other rank's buffers."""
    tensors = {name: told for name, told in expected["tensors"].items() if size > 1 or not name.startswith("rank ")}
    return {**expected, "tensors": tensors}
