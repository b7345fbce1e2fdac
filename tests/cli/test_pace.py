"""What gtj plan goes by: the job's own run before a probe, and that before what is assumed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.cli import pace, plan
from trainjobs.cli.main import status
from trainjobs.plan.measured import Pace


def job(steps: int = 1000, **spec: Any) -> Job:
    base = {
        "vae": {"network": {"channels": 4, "latentDim": 2}},
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
        "training": {"steps": steps, "batch": {"global": 16}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
    }
    manifest = {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "small"},
        "spec": {**base, **spec},
    }
    return Job.model_validate(manifest)


def ran(folder: Path, was: Job, step: float = 0.5, rows: int = 12) -> None:
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(was.model_dump_json(by_alias=True, exclude_none=True))
    (folder / "progress.json").write_text(json.dumps({"workers": 1, "device": "cpu", "phase": "Stopped"}))
    lines = [json.dumps({"step": number, "time": 100 + step * number, "samples": 16 * number}) for number in range(1, rows + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_job_s_own_run_is_a_measure(here: Path) -> None:
    ran(here / "gentrain-runs" / "small", job(steps=50))
    found, why = pace.history(job())
    assert found is not None
    assert (found.median, found.ranks, why) == (0.5, 1, "")
    assert found.basis.startswith("history on cpu: 11 steps, median 500 ms")


def test_one_of_a_version_that_had_no_such_switch_is_a_measure(here: Path) -> None:
    ran(here / "gentrain-runs" / "small", job())
    kept = here / "gentrain-runs" / "small" / "job.json"
    written = json.loads(kept.read_text())
    del written["spec"]["training"]["compile"]
    kept.write_text(json.dumps(written))
    assert pace.history(job())[0] is not None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"vae": {"network": {"channels": 8, "latentDim": 2}}}, "vae"),
        ({"training": {"steps": 1000, "batch": {"global": 32}}}, "training.batch"),
        ({"training": {"steps": 1000, "batch": {"global": 16}, "precision": "bf16"}}, "training.precision"),
        ({"training": {"steps": 1000, "batch": {"global": 16}, "compile": True}}, "training.compile"),
    ],
)
def test_one_of_another_job_is_none_and_that_is_said(here: Path, change: dict[str, Any], what: str) -> None:
    ran(here / "gentrain-runs" / "small", job())
    found, why = pace.history(job(**change))
    assert found is None
    assert why.endswith(f"is no measure: it has another {what}")


def test_a_run_of_few_rows_is_none(here: Path) -> None:
    ran(here / "gentrain-runs" / "small", job(), rows=3)
    assert pace.history(job())[1].endswith("has made too few steps to measure")
    assert pace.history(job().model_copy(update={"metadata": job().metadata.model_copy(update={"name": "other"})})) == (None, "")


def test_nothing_beside_the_steps_of_a_probe_and_nothing_of_it_stays() -> None:
    tracked = job(
        training={"steps": 9000, "batch": {"global": 16}, "tracking": {"tracker": "wandb"}},
        checkpoints={"uri": "s3://bucket/x", "every": {"steps": 2}},
        evaluation={"everySteps": 5},
    )
    spec = pace.probed(tracked).spec
    assert (spec.training.steps, spec.training.tracking, spec.checkpoints.uri, spec.checkpoints.every) == (
        pace.MOST,
        None,
        None,
        spec.checkpoints.every,
    )
    assert spec.checkpoints.every is not None
    assert (spec.checkpoints.every.steps, spec.evaluation.every_steps) == (pace.MOST, pace.MOST)
    assert spec.vae == tracked.spec.vae


@pytest.mark.slow
def test_history_comes_before_a_probe_and_a_probe_before_what_is_assumed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = job().model_dump(mode="json", by_alias=True, exclude_none=True)
    (here / "job.json").write_text(json.dumps(manifest))
    asked = list[Job]()

    def probe(job: Job) -> Pace:
        asked.append(job)
        return Pace(0.9, 1.0, 1.1, 1, "probe on cpu: 10 steps")

    monkeypatch.setattr(plan, "probe", probe)
    shown = []
    for history, arguments in ((False, ()), (False, ("--probe",)), (True, ("--probe",))):
        if history:
            ran(here / "gentrain-runs" / "small", job())
        out = here / "out"
        with out.open("w") as file, monkeypatch.context() as patched:
            patched.setattr("sys.stdout", file)
            assert status(["plan", "-f", "job.json", *arguments, "-o", "json"]) == 0
        best = json.loads(out.read_text())["options"][0]
        shown.append((best["hours"], best["basis"]))
    assert shown[0] == (None, None), "of a CPU nothing is assumed"
    assert shown[1] == ([0.25, pytest.approx(0.3056, abs=1e-3)], "probe on cpu: 10 steps")
    assert shown[2][0] == [pytest.approx(0.125), pytest.approx(0.1528, abs=1e-3)]
    assert shown[2][1].startswith("history on cpu: 11 steps")
    assert len(asked) == 1


@pytest.mark.slow
def test_a_real_probe(here: Path) -> None:
    found = pace.probe(job())
    assert found.ranks == 1
    counted = re.match(r"probe on cpu: (\d+) steps, median ", found.basis)
    assert counted is not None
    assert int(counted[1]) * found.high >= pace.SECONDS, "short steps are looked at for ten seconds"
    assert 0 < found.low < found.median < found.high < 5
    assert not (here / "gentrain-runs").exists()
