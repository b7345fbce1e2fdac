"""What was foreseen of a run is told beside what it measured: by status, explain and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click import unstyle

from trainjobs.cli.explained import explained
from trainjobs.cli.status import described, status
from trainjobs.plan.forecast import ANNOTATION, Forecast, text
from trainjobs.report.planned import lines
from trainjobs.report.tiles import tiles
from trainjobs.run.folder import Run

WAY = Forecast("this machine", 1, 0, 64, 2**30, (0.010, 0.020))


def run(folder: Path, plan: Any, **told: Any) -> Run:
    spec = {
        "vae": {},
        "data": {"source": "builtin:digits"},
        "training": {"steps": 100, "batch": {"global": 64}},
        "compute": {"gpusPerWorker": 0},
    }
    annotations = {ANNOTATION: plan} if plan is not None else {}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a", "annotations": annotations}}
    (folder / "job.json").write_text(json.dumps({**job, "spec": spec}))
    progress = {"phase": "Succeeded", "step": 100, "totalSteps": 100, "workers": 1, "stage": 0, "device": "cpu", "spent": {"steps": 5.0}}
    (folder / "progress.json").write_text(json.dumps({**progress, "memoryBytes": 2**31, **told}))
    return Run(folder)


def test_a_miss_is_told_by_status_explain_and_report(tmp_path: Path) -> None:
    slow = run(tmp_path, text([WAY]))
    said = "time 10 to 20 ms a step foreseen, 50 ms measured: above the range"
    assert [str(line) for line in lines(slow)] == [said], "of a CPU the memory is not compared"
    assert any(said in unstyle(line) for line in described(slow, 0.0))
    assert status(slow)["planned"][0]["missed"] == "above the range"
    assert f"planned: {said}" in explained(slow, 0.0).why
    found = {tile.label: tile for tile in tiles(slow, [], [])}
    assert found["planned time"][1:] == ("10 to 20 ms a step", "50 ms measured: above the range")


def test_what_was_foreseen_is_told_and_explains_nothing(tmp_path: Path) -> None:
    right = run(tmp_path, text([WAY]), spent={"steps": 1.5}, device="cuda", memoryBytes=2**30)
    assert [line.missed for line in lines(right)] == ["", ""]
    assert not any("planned" in why for why in explained(right, 0.0).why)


def test_no_plan_another_way_and_a_folder_of_another_version_say_nothing(tmp_path: Path) -> None:
    for plan, told in ((None, {}), ("[", {}), (text([WAY]), {"stage": 1}), (text([WAY]), {"workers": None}), (text([WAY]), {"step": 0})):
        assert lines(run(tmp_path, plan, **told)) == []
    odd = run(tmp_path, text([WAY]))
    job = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps({**job, "spec": {"unheard": {}}}))
    assert lines(odd) == []
