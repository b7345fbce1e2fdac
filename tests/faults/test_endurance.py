"""A run that is hit again and again ends with the weights, optimizer state and averages of an undisturbed one.

GENTRAIN_ENDURANCE says for how many seconds (the benchmark `endurance` does it for fifteen minutes), GENTRAIN_SEED repeats one.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults.endurance import PAUSE, Runner, contents, endure, manifest

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("GENTRAIN_ENDURANCE", "24"))
SEED = int(os.environ.get("GENTRAIN_SEED", str(random.SystemRandom().randrange(10**6))))
EVERY = 8.0 if SECONDS < 120 else 30.0


def test_hit_again_and_again(tmp_path: Path) -> None:
    steps = int(0.6 * SECONDS / PAUSE)
    undisturbed = Runner(tmp_path / "undisturbed", manifest(steps, 0.0))
    undisturbed.finish(600)
    runner = Runner(tmp_path / "hit", manifest(steps, PAUSE))
    try:
        endured = endure(runner, SECONDS, EVERY, random.Random(SEED))
    finally:
        runner.end()
    print(f"seed {SEED}: {endured.counts}")
    runner.finish(1)
    assert endured.hits, f"seed {SEED}"
    expected, ours = contents(undisturbed.run), contents(runner.run)
    assert expected["step"] == str(steps)
    assert ours == expected, f"seed {SEED}"
