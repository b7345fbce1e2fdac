"""In which numbers losses are computed: `training.precision`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """torch's autocast to the precision; for fp32 one that does nothing. It may be entered again and again."""
    return torch.autocast(device.type, LOW.get(precision, torch.bfloat16), enabled=precision in LOW)
