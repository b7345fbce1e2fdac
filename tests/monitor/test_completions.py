"""Watches over completions: what is told when, once, and after a restart; and a run that learns nothing says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group
import test_alignment

from trainjobs.monitor.completions import CompletionWatches
from trainjobs.report.page import write_report

FLAT = {"groups/flat": 1.0, "completion/ended": 0.5, "reward": 0.0}


def said(watches: CompletionWatches) -> list[str]:
    return [error.line() for error in watches.news()]


def test_groups_that_are_all_flat_are_told_once_and_again_when_they_come_back() -> None:
    watches = CompletionWatches("grpo", 8)
    watches.adapt({**FLAT, "groups/flat": 0.99})
    assert said(watches) == []
    watches.adapt(FLAT)
    (line,) = said(watches)
    assert line.startswith("GTJ0220 nothing is learned")
    assert "dynamicSampling" in line
    assert watches.standing
    again = CompletionWatches("grpo", 8)
    again.load_state(json.loads(json.dumps(watches.state())))
    again.adapt(FLAT)
    assert said(again) == []
    again.adapt({**FLAT, "groups/flat": 0.5})
    assert not again.standing
    again.adapt(FLAT)
    assert len(said(again)) == 1


def test_completions_that_are_all_cut_off_are_told() -> None:
    watches = CompletionWatches("ppo", 8)
    watches.adapt({"completion/ended": 0.01})
    assert said(watches) == []
    watches.adapt({"completion/ended": 0.0})
    (line,) = said(watches)
    assert "within 8 tokens" in line
    assert watches.collapse is None


@pytest.mark.slow
def test_a_run_that_learns_nothing_says_so_in_progress_and_report(tmp_path: Path) -> None:
    test_alignment.write(tmp_path)
    spec = test_alignment.spec("grpo-z0-w1", tmp_path)
    spec["training"]["steps"] = 20
    spec["language"]["grpo"] = {"rewards": [{"function": "regex", "pattern": "never this"}], "maxCompletion": 2, "generations": 4}
    run = group.prepare(tmp_path / "run", spec)
    group.run_group(1, [str(run)], tmp_path)
    assert json.loads((run / "progress.json").read_text())["warning"].startswith("GTJ0220 ")
    report = write_report(run).read_text()
    assert "all completions of each prompt were worth the same" in report
    assert "every completion was cut off" in report
    assert group.losses(run, "groups/flat") == [1.0] * 20
