"""State of a user's own objective beyond its networks is in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell

pytestmark = pytest.mark.slow

COUNTING = """
import torch
from tests.e2e_local.mean import Mean

class Counting(Mean):
    def state(self):
        return {"calls": self.calls}
    def load_state(self, state):
        self.calls = state["calls"]
    def loss(self, batch):
        self.calls += 1
        loss, metrics = super().loss(batch)
        return loss, {**metrics, "calls": torch.tensor(float(self.calls))}

def build(spec, info):
    return Counting().built()
"""


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    shell = Shell(tmp_path)
    shell.manifest(vae=None, custom={"objective": "counting:build"})
    for steps in (3, 6):
        done = shell.train("--steps", steps)
        assert done.returncode == 0, done.stderr
    calls = {row["step"]: row["calls"] for row in shell.run.metrics() if "calls" in row}
    assert calls[6] > 3, "it counted anew"  # a row is the mean of the steps since the one before: of 5 and 6, say
