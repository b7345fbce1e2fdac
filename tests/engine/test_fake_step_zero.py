"""What plan/memory.py says a rank needs at ZeRO stages 1 to 3, against what two ranks of DeepSpeed held in real steps."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.engine import staged
from tests.equivalence import group
from trainjobs.engine.fake_step import trace
from trainjobs.objectives.build import build
from trainjobs.plan.memory import peak


@pytest.mark.slow
def test_the_peak_of_a_real_rank_is_met_within_15_percent(tmp_path: Path) -> None:
    group.run_group(2, [str(tmp_path)], tmp_path, script=str(Path(staged.__file__)))
    measured = [json.loads((tmp_path / f"peaks-{rank}.json").read_text()) for rank in range(2)]
    looked = {}
    for family in staged.FAMILIES:
        for precision in staged.PRECISIONS:
            spec = staged.job(family, precision)
            looked[family, precision] = trace(spec, partial(build, spec, staged.INFO[family]), staged.rows(family), 1)
    off = {}
    for family, stage, precision in staged.CASES:
        found, name = looked[family, precision], f"{family} {stage} {precision}"
        planned, real = peak(found.weights, found.beside, stage, 2, precision), max(one[name] for one in measured)
        off[name] = planned / real - 1
        print(f"{name}: {planned / 2**20:.1f} MiB, measured {real / 2**20:.1f}, {off[name]:+.1%}")
    assert {name: share for name, share in off.items() if abs(share) > 0.15} == {}
