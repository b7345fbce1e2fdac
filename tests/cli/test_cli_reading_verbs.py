"""ls, status, logs, checkpoints, report, doctor, version, completion: on folders as trainers leave them."""

from __future__ import annotations

import fcntl
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, files_below, open_store
from trainjobs.cli import doctor, version
from trainjobs.cli.logs import Keep as Lines
from trainjobs.cli.logs import Times, period, tail, wanted, written
from trainjobs.cli.main import gtj, status
from trainjobs.run import progress
from trainjobs.run.failures import publish
from trainjobs.run.folder import Run
from trainjobs.run.progress import mark

Gtj = Callable[..., Result]


@pytest.fixture
def gtj_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gtj:
    """The command, in a folder with two runs: one that succeeded, one whose trainer is gone."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "gentrain-runs" / "faces", "gan", phase="Succeeded", step=100, metrics={"loss/D": 0.5, "loss/G": 1.25})
    make(tmp_path / "gentrain-runs" / "digits", "vae", phase="Running", step=40, metrics={"loss": 0.0413})
    (tmp_path / "gentrain-runs" / "not-a-run").mkdir()
    return lambda *arguments: CliRunner().invoke(gtj, list(arguments))


def make(path: Path, family: str, **progress: Any) -> None:
    (path / "logs").mkdir(parents=True)
    (path / "job.json").write_text(json.dumps({"metadata": {"name": path.name}, "spec": {family: {}}}))
    (path / "progress.json").write_text(
        json.dumps({"totalSteps": 100, "attempt": 1, "workers": 2, "stage": 1, "device": "cpu", **progress})
    )
    (path / "attempts.jsonl").write_text(
        json.dumps({"time": 1000.0, "event": "started", "attempt": 1, "step": 0, "message": "2 workers"}) + "\n"
    )
    (path / "logs" / "driver.log").write_text("driver says hello\n")


def test_ls(gtj_here: Gtj) -> None:
    lines = gtj_here("ls").output.splitlines()
    assert lines[0].split() == ["NAME", "FAMILY", "PHASE", "PROGRESS", "LOSS", "AGE"]
    assert lines[1].split() == ["digits", "vae", "Interrupted", "40%", "40/100", "0.0413", "-"]
    assert lines[2].split() == ["faces", "gan", "Succeeded", "100%", "100/100", "D", "0.5", "G", "1.25", "-"]
    assert len({line.find(word) for line, word in zip(lines, ["PHASE", "Interrupted", "Succeeded"], strict=True)}) == 1


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_ls_for_programs(gtj_here: Gtj, form: str, load: Callable[[str], Any]) -> None:
    rows = load(gtj_here("ls", "-o", form).output)
    assert [(row["name"], row["phase"], row["step"]) for row in rows] == [("digits", "Interrupted", 40), ("faces", "Succeeded", 100)]


def test_ls_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(gtj, ["ls"])
    assert result.exit_code == 0
    assert "no runs" in result.output
    assert CliRunner().invoke(gtj, ["ls", "-o", "json"]).output.strip() == "[]"


def test_status_by_name_and_by_folder(gtj_here: Gtj) -> None:
    by_name = gtj_here("status", "digits").output
    assert "Interrupted" in by_name
    assert "40% 40/100" in by_name
    assert "goes on from its newest checkpoint" in by_name
    assert "2 workers" in by_name
    data = json.loads(gtj_here("status", "gentrain-runs/faces", "-o", "json").output)
    assert (data["phase"], data["metrics"]["loss/G"], data["failure"]) == ("Succeeded", 1.25, None)


def test_status_says_what_a_run_is_doing_beside_its_steps(gtj_here: Gtj, tmp_path: Path) -> None:
    run = tmp_path / "gentrain-runs" / "digits"
    progress.update(run, activity="drawing 64 samples, 23/64", etaSeconds=600)
    assert "drawing" not in gtj_here("status", "digits").output, "nobody is"
    with (run / "gtj.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert re.search(r"doing +drawing 64 samples, 23/64\n.*40% 40/100 +ETA 10m", gtj_here("status", "digits").output)
        assert json.loads(gtj_here("status", "digits", "-o", "json").output)["activity"] == "drawing 64 samples, 23/64"
        progress.update(run, activity=None, message="resumed from step 40")
        assert re.search(r"doing +resumed from step 40", gtj_here("status", "digits").output)


def test_status_shows_the_last_events_and_warnings_of_before(gtj_here: Gtj) -> None:
    run = Run(Path("gentrain-runs/long"))
    make(run.path, "vae", phase="Succeeded")
    for number in range(20):
        mark(run.path, "warning", message=f"trouble {number}")
    for step in range(20):
        mark(run.path, "checkpoint", step=step)
    said = gtj_here("status", "long").output
    assert [number for number in range(20) if f"trouble {number}\n" in said] == list(range(14, 20))
    assert [step for step in range(20) if re.search(rf"checkpoint +step {step}$", said, re.MULTILINE)] == list(range(14, 20))
    assert [event["event"] for event in json.loads(gtj_here("status", "long", "-o", "json").output)["events"]] == [
        *["warning"] * 6,
        *["checkpoint"] * 6,
    ]


def test_status_of_a_run_that_failed_says_why_once(gtj_here: Gtj) -> None:
    run = Run(Path("gentrain-runs/early"))
    make(run.path, "vae", phase="Failed")
    (run.path / "attempts.jsonl").unlink()
    publish(run.path, JobError("GTJ0113", "no image is readable", where="/data", how="look at them"), {})
    said = gtj_here("status", "early").output
    assert "None" not in said
    assert "  failed" in said
    assert said.count("no image is readable") == 1


@pytest.mark.parametrize("verb", [["status"], ["logs"], ["report"], ["checkpoints", "ls"], ["checkpoints", "verify"]])
def test_a_name_that_does_not_exist(gtj_here: Gtj, verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status([*verb, "fases"]) == 7
    said = capsys.readouterr().err
    assert "GTJ0118" in said
    assert 'did you mean "faces"?' in said


def test_report(gtj_here: Gtj) -> None:
    result = gtj_here("report", "faces")
    assert Path(result.output.strip()).read_text().startswith("<!doctype html>")


def test_logs_of_all_and_of_one_rank(gtj_here: Gtj, capsys: pytest.CaptureFixture[str]) -> None:
    logs = Path("gentrain-runs/faces/logs")
    for rank in (0, 1, 10, 2):
        (logs / f"worker-{rank}.log").write_text(f"worker {rank}\nloss {rank}\n")
    lines = gtj_here("logs", "faces", "--grep", "hello|^loss").output.splitlines()
    assert lines == ["driver | driver says hello", "rank 0 | loss 0", "rank 1 | loss 1", "rank 2 | loss 2", "rank 10 | loss 10"]
    assert gtj_here("logs", "faces", "--rank", "2").output == "worker 2\nloss 2\n"
    assert status(["logs", "faces", "--rank", "7"]) == 7
    assert "0, 1, 2, 10" in capsys.readouterr().err
    assert status(["logs", "faces", "--grep", "("]) == 2
    assert status(["logs", "faces", "--since", "soon"]) == 2


def test_an_empty_log_is_said_to_be_empty(gtj_here: Gtj) -> None:
    logs = Path("gentrain-runs/faces/logs")
    (logs / "worker-0.log").write_text("")
    (logs / "worker-1.log").write_text("a line\n")
    empty = gtj_here("logs", "faces", "--rank", "0")
    assert (empty.stdout, empty.stderr) == ("", "nothing was written yet: gentrain-runs/faces/logs/worker-0.log is empty\n")
    filtered = gtj_here("logs", "faces", "--rank", "1", "--grep", "nowhere")
    assert (filtered.stdout, filtered.stderr) == ("", "no line of worker-1.log is kept by --since and --grep\n")


def test_since_keeps_lines_without_a_time_with_the_one_before() -> None:
    text = b"2026-08-30T12:00:00Z old\n  its traceback\n2026-08-30T12:05:00Z new\n  its traceback\n"
    since = written("2026-08-30T12:04:00Z")
    kept = [line for _, line in wanted(Path("x"), text, Lines(since), Times())]
    assert kept == ["2026-08-30T12:05:00Z new", "  its traceback"]
    assert period("1h30m") == 5400


def test_following_prints_whole_lines_once_until_the_run_ends(tmp_path: Path) -> None:
    make(tmp_path, "vae", phase="Running")
    run, log = Run(tmp_path), tmp_path / "logs" / "driver.log"
    lock = (tmp_path / "lock").open("w")
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX)
    steps = iter(
        [
            lambda: log.write_bytes(b"driver says hello\nhalf a "),
            lambda: log.write_bytes(b"driver says hello\nhalf a line \xff\n"),
            lambda: (tmp_path / "logs" / "worker-0.log").write_text("late\n"),
            lambda: (tmp_path / "progress.json").write_text('{"phase": "Succeeded"}'),
        ]
    )
    lines = list(tail([log], Lines(), run, lambda seconds: next(steps)() and None))
    assert [line for _, line in lines] == ["driver says hello", "half a line \ufffd", "late"]


def saved(path: Path) -> Checkpoints:
    checkpoints = Checkpoints(open_store(f"file://{path.resolve()}/checkpoints"), keep=Keep(last=2))
    attempt = checkpoints.begin()
    for step in (10, 20, 30):
        shard = path / "shard"
        shard.mkdir(exist_ok=True)
        (shard / "model.pt").write_bytes(b"weights of step %d" % step)
        prefix = checkpoints.prefix(step, attempt)
        digest = checkpoints.put_shard(prefix, 0, files_below(shard))
        checkpoints.commit(prefix, attempt=attempt, step=step, samples=step, digests=[digest], metadata={}, metrics={"loss": 1 / step})
        checkpoints.retain()
    return checkpoints


def test_checkpoints(gtj_here: Gtj, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("gentrain-runs/faces")
    assert status(["checkpoints", "verify", "faces"]) == 7
    checkpoints = saved(run)
    rows = json.loads(gtj_here("checkpoints", "ls", "faces", "-o", "json").output)
    assert [(row["step"], row["state"]) for row in rows] == [(10, "deleted"), (20, "live"), (30, "live")]
    assert gtj_here("checkpoints", "ls", rows[2]["uri"].split("/steps/")[0]).output.splitlines()[3].split()[0] == "30"
    assert status(["checkpoints", "verify", "faces"]) == 0
    assert capsys.readouterr().out.count("whole") == 2
    assert status(["checkpoints", "verify", rows[2]["uri"]]) == 0
    assert capsys.readouterr().out.startswith("step 30  whole")
    damaged = next((run / "checkpoints" / rows[1]["uri"].split("/checkpoints/")[1]).rglob("model.pt"))
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    assert status(["checkpoints", "verify", "faces"]) == 5
    said = capsys.readouterr().out
    assert "step 20  corrupt" in said
    assert "step 30  whole" in said
    assert [one.state for one in checkpoints.commits()] == ["deleted", "live", "live"], "verify changes nothing"


def test_doctor_names_what_is_wrong_and_how_to_mend_it() -> None:
    absent = doctor.package("torch", "2.11", "fail", lambda name: None)
    assert (absent.level, "pip install" in absent.mend) == ("fail", True)
    assert doctor.package("torch", "2.11", "fail", lambda name: "2.9.1+cpu").level == "warn"
    assert doctor.package("torch", "2.11", "fail", lambda name: "2.13.0+cu130").level == "ok"
    assert doctor.python((3, 10)).level == "fail"
    assert doctor.python((3, 13)).level == "ok"
    assert doctor.gpu(None).level == "ok"
    assert doctor.gpu([]).level == "warn"
    assert doctor.gpu(["NVIDIA H200, 143771 MiB"]).detail == "NVIDIA H200, 143771 MiB"
    assert doctor.memory(2**30).level == "warn"
    assert doctor.disk(Path(), 2**20).level == "fail"
    assert "apt-get install g++" in doctor.compiler(lambda name: None).mend


def test_doctor_runs_here(gtj_here: Gtj) -> None:
    findings = json.loads(gtj_here("doctor", "-o", "json").output)
    assert {"python", "torch", "deepspeed", "ray", "gpu", "cores", "memory", "disk", "compiler", "run folder"} <= {
        one["subject"] for one in findings
    }


def test_version_and_completion(gtj_here: Gtj) -> None:
    versions = json.loads(gtj_here("version", "-o", "json").output)
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"gentrain", "torch", "deepspeed", "ray", "transformers"} <= set(versions)
    assert version.installed("pytest") == pytest.__version__
    assert version.installed("no-such-distribution") is None
    for shell in ("bash", "zsh", "fish"):
        assert "_GTJ_COMPLETE" in gtj_here("completion", shell).output
    assert gtj_here("completion", "tcsh").exit_code == 2


def test_the_shell_completes_names_of_runs(gtj_here: Gtj) -> None:
    from click.shell_completion import ShellComplete

    complete = ShellComplete(gtj, {}, "gtj", "_GTJ_COMPLETE")
    assert [item.value for item in complete.get_completions(["status"], "f")] == ["faces"]
    assert {"run", "report"} <= {item.value for item in complete.get_completions([], "r")}
