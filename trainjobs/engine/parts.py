"""A slice of a tensor and its elements, live: what training writes, a save reads and a restore fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainjobs.checkpoints.tensors import Slice

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "U64": torch.uint64,
}  # fmt: skip


NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Part:
    """A slice of a tensor and its elements, live: written by training, read by a save, overwritten by a restore."""

    slice: Slice
    tensor: Tensor
    restless: bool = False  # changes between two optimizer steps

    def fill(self, values: Tensor) -> None:
        """Set the elements to those of `values`, flat."""
        with torch.no_grad():
            self.tensor.copy_(values.view(self.tensor.shape))


def part(key: str, tensor: Tensor, shape: Sequence[int] | None = None, start: int = 0, *, restless: bool = False) -> Part:
    """`tensor` as elements `start` on of a tensor of `shape`; by default it is the whole."""
    whole = tuple(tensor.shape if shape is None else shape)
    return Part(Slice(key, NAMES[tensor.dtype], whole, start, tensor.numel()), tensor.detach(), restless)
