"""What a run sees does not depend on how its state is divided among ranks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.real import made
from tests.data.real.recorded import recording

sys.path.insert(0, str(Path(__file__).parents[2] / "equivalence"))

import group

pytestmark = pytest.mark.slow

STEPS, BATCH = 12, 6  # 72 samples: an epoch and a part of the next
FORKED = str(Path(__file__).parent / "forked.py")


def spec(source: str, stage: int) -> dict[str, Any]:
    return {
        "custom": {"objective": "tests.data.real.recorded:build"},
        "data": {"source": source, "holdout": 0.1, "images": {"size": 16}},
        "training": {"steps": STEPS, "seed": 3, "batch": {"global": BATCH}},
        "compute": {"workers": 2, "gpusPerWorker": 0},
        "deepspeed": {"stage": stage},
        "checkpoints": {"every": {"steps": 1000}},
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


def test_two_ranks_see_the_same_samples_at_stage_3_as_at_stage_0(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, shard in made.tars(60, 8).items():
        (data / name).write_bytes(shard)
    runs = {stage: group.prepare(tmp_path / f"stage-{stage}", spec(f"file://{data}", stage)) for stage in (0, 3)}
    group.run_group(2, [str(run) for run in runs.values()], tmp_path, script=FORKED, extra={})
    seen = {stage: recording(run / "seen") for stage, run in runs.items()}
    assert sorted(seen[0]) == list(range(STEPS * BATCH))
    assert seen[3] == seen[0]
