"""A model of one's own, from `gtj init custom` to samples: the code that it writes trains as it is, on two workers."""

from __future__ import annotations

import pytest
from shell import Shell

pytestmark = pytest.mark.slow


def test_what_init_custom_writes_trains(shell: Shell) -> None:
    shell.environment["PYTHONPATH"] = shell.environment["PYTHONPATH"].replace(f":{shell.path}", "")  # found where the user stands
    assert shell.gtj("init", "custom", "-o", "flow.yaml").returncode == 0
    assert sorted(path.name for path in shell.path.iterdir()) == ["flow.yaml", "flow_objective.py"]
    done = shell.gtj("run", "-f", "flow.yaml", "--steps", 150, "--set", "evaluation.everySteps=50", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    heldout = [row["heldout/loss"] for row in shell.run.metrics() if "heldout/loss" in row]
    print("held-out loss", heldout)
    assert len(heldout) == 3
    # A Gaussian as wide as the ring has log(2 pi e 2) = 3.53 nats; it must have found more than that.
    assert heldout[-1] < 3.3
    assert heldout == sorted(heldout, reverse=True)
    assert (shell.run.path / "samples" / "step-000150.png").stat().st_size > 0
