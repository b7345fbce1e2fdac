"""What a group of workers says of itself when it begins to train."""

from __future__ import annotations

import pytest
import torch

from trainjobs.api.job import Spec
from trainjobs.monitor.beginning import begun
from trainjobs.world import World


@pytest.mark.parametrize("compiled", [False, True])
def test_a_first_step_that_compiles_is_said_before_it(compiled: bool) -> None:
    network = {"architecture": "gpt2", "layers": 1, "hidden": 8, "heads": 1, "contextLength": 8}
    told = {
        "language": {"network": network},
        "data": {"source": "builtin:stdlib-text"},
        "training": {"steps": 1, "batch": {"global": 1}, "compile": compiled},
        "compute": {"workers": 1, "gpusPerWorker": 0},
    }
    words = begun(World(0, 1, torch.device("cpu")), 0, None, {}, Spec.model_validate(told))
    assert words == "1 worker on cpu, ZeRO stage 0" + ("; the first step compiles blocks" if compiled else "")
