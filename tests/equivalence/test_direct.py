"""At stage 0 torch alone ends where DeepSpeed's engine does, to the last bit: on one rank and on two, with and without clipping,
accumulation, fp16 with its loss scale, bf16, Muon, a measured norm, weights without a gradient, and some that one rank alone uses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import group
from direct import CASES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [1, 2])
def test_torch_alone_is_deepspeeds_engine_to_the_last_bit(size: int, tmp_path: Path) -> None:
    group.run_group(size, [str(tmp_path)], tmp_path, script="direct.py")
    for rank in range(size):
        found = json.loads((tmp_path / f"direct-{size}-{rank}.json").read_text())
        assert found.keys() == CASES.keys()
        for name, case in found.items():
            assert case["kinds"] == ["Direct", "DeepSpeedEngine"], name
            assert case["moved"], name
            assert case["same"], f"{name} on rank {rank} of {size}"
