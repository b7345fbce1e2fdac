"""Noise on a GPU, drawn by one kernel, against a processor's."""

from __future__ import annotations

import pytest
import torch

from tests.test_noise_kernel import KINDS, compare
from trainjobs import noise

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_the_kernel_draws_what_a_processor_draws() -> None:
    assert noise._kernel("cuda") is not None
    found = compare("cuda")
    assert found.pop("normal") <= 5e-7
    assert found == dict.fromkeys(KINDS[:-1], 0.0)
