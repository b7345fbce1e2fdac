"""Like at_once.py, with a loss scale that begins at 2^12 and doubles after three updates, so that its whole course fits into a few steps,
and DeepSpeed told that this CPU computes in fp16."""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

from deepspeed.accelerator import get_accelerator

from tests.equivalence import at_once, worker  # noqa: F401
from trainjobs.engine import engine, loss_scale

INITIAL, WINDOW = 2.0**12, 3

if __name__ == "__main__":
    loss_scale.WINDOW = WINDOW
    engine.LossScale = partial(loss_scale.LossScale, scale=INITIAL)  # type: ignore[attr-defined]
    with patch.object(type(get_accelerator()), "is_fp16_supported", lambda self: True):
        worker.main()
