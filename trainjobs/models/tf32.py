"""fp32 on a GPU with inputs rounded to 10 bits of mantissa (TF32), by torch's own switches, which are the process's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Matrix products in TF32, or in full fp32 whatever the environment says; afterwards as before. Convolutions are left as they are: in
    TF32, unless torch is told otherwise."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32 = before


@contextmanager
def single(device: torch.device) -> Iterator[None]:
    """fp32 in full: no autocast, and no TF32 in products or convolutions."""
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(tf32(False))
        if device.type == "cuda":
            stack.enter_context(cudnn.flags(enabled=True, benchmark=False, deterministic=cudnn.deterministic, allow_tf32=False))
        yield
