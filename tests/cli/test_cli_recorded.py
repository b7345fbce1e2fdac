"""ls, status, logs, report and explain of a run by the URI of its checkpoints: its record alone is left."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.test_cli_reading_verbs import make
from tests.stores.servers import service
from trainjobs.api.errors import JobError
from trainjobs.cli.explained import explained
from trainjobs.cli.main import gtj
from trainjobs.run.folder import Run
from trainjobs.run.record import Record
from trainjobs.stores.file import FileStore
from trainjobs.stores.open import open_store

Gtj = Callable[..., Result]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where two jobs keep their checkpoints, whose folders are gone."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "faces", "gan", phase="Succeeded", step=100, metrics={"loss/D": 0.5, "loss/G": 1.25})
    make(tmp_path / "digits", "vae", phase="Failed", step=40, metrics={"loss": 0.0413})
    (tmp_path / "digits" / "failure.json").write_text(json.dumps({"code": "GTJ0206", "what": "out of GPU memory"}))
    (tmp_path / "digits" / "logs" / "worker-1.log").write_text("rank one says\n")
    for name in ("faces", "digits"):
        Record(tmp_path / name, FileStore(tmp_path / "store" / name)).look()
        shutil.rmtree(tmp_path / name)
    return f"file://{tmp_path}/store"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(gtj, list(arguments))


def test_runs_below_a_place(place: str) -> None:
    lines = run("ls", place).output.splitlines()
    assert lines[1].split() == ["digits", "vae", "Failed", "40%", "40/100", "0.0413", "-"]
    assert lines[2].split() == ["faces", "gan", "Succeeded", "100%", "100/100", "D", "0.5", "G", "1.25", "-"]
    assert [row["folder"] for row in json.loads(run("ls", place, "-o", "json").output)] == [f"{place}/digits", f"{place}/faces"]
    assert "no run keeps a record in" in run("ls", f"{place}/digits").output
    assert run("ls", place, "-A").exit_code == 2
    assert run("ls", "faces").exit_code == 2


def test_one_run(place: str) -> None:
    said = run("status", f"{place}/digits").output
    assert said.splitlines()[0].split() == ["digits", "vae", "Failed"]
    assert f"{place}/digits" in said
    assert "GTJ0206 out of GPU memory" in said
    assert run("logs", f"{place}/digits").output == "driver | driver says hello\nrank 1 | rank one says\n"
    assert run("logs", f"{place}/digits", "--rank", "1").output == "rank one says\n"
    for arguments in (("status", f"{place}/digits", "-w"), ("logs", f"{place}/digits", "-f")):
        assert run(*arguments).exit_code == 2


def test_when_the_folder_is_gone_the_record_says_what_the_folder_said(place: str, tmp_path: Path) -> None:
    says_the_same(place, tmp_path)


@pytest.mark.slow
def test_when_the_cluster_is_gone_the_bucket_says_what_its_pods_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with service("moto", tmp_path) as store:
        for name, value in store.environ().items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        says_the_same(store.fresh(), tmp_path)


def says_the_same(place: str, tmp_path: Path) -> None:
    """ls, status, logs, explain and report, of a run that succeeded and of one that failed."""
    for name, failure in (("one", None), ("two", {"code": "GTJ0206", "what": "out of GPU memory", "rank": 1, "step": 41, "how": "less"})):
        folder = tmp_path / "gentrain-runs" / name
        checkpoint = {"step": 40, "uri": "steps/40-a1", "committedAt": 1.0}
        make(folder, "gan", phase="Failed" if failure else "Succeeded", step=40, metrics={"loss/D": 0.5}, checkpoint=checkpoint)
        (folder / "logs" / "worker-1.log").write_text("rank one says\n")
        if failure:
            (folder / "failure.json").write_text(json.dumps(failure))
        here, there = str(folder), f"{place}/{name}"
        verbs = (("status",), ("logs",), ("logs", "--rank", "1"))
        before = [run(verb, here, *more).output for verb, *more in verbs]
        told = explained(Run(folder), 10.0)
        page = reported(run("report", here, "--out", "before.html"), tmp_path / "before.html")
        row = fields(name)
        Record(folder, open_store(there)).look()
        shutil.rmtree(folder)
        after = [run(verb, there, *more).output for verb, *more in verbs]
        assert [text.replace(there, here) for text in after] == before
        again = json.loads(run("explain", there, "-o", "json").output)
        assert (again["what"], again["code"], again["do"]) == (told.what, told.code, list(told.do))
        assert [line for line in again["why"] if "newest checkpoint" not in line] == [
            line for line in told.why if "newest checkpoint" not in line
        ]
        assert reported(run("report", there, "--out", "after.html"), tmp_path / "after.html") == page
        assert fields(name, place) == row


def fields(name: str, *place: str) -> list[str]:
    """What `gtj ls` says of a run."""
    (line,) = (line for line in run("ls", *place).output.splitlines() if line.startswith(f"{name} "))
    return line.split()


def reported(done: Result, page: Path) -> list[str]:
    """The words of a report, without where the run is, when the page was written, and how what is there is looked at."""
    assert done.exit_code == 0, done.output
    words = re.sub(r"<(style|script|svg|footer).*?</\1>|<[^>]*>", " ", page.read_text(), flags=re.DOTALL).split()
    return [word for word in words if "/" not in word and ":" not in word]


def test_a_report(place: str, tmp_path: Path) -> None:
    assert run("report", f"{place}/faces").output == "faces.html\n"
    assert f"{place}/faces" in (tmp_path / "faces.html").read_text()
    assert run("report", f"{place}/faces", "--out", "there.html").output == "there.html\n"
    assert (tmp_path / "there.html").exists()


def test_where_nothing_is(place: str) -> None:
    nothing = run("status", f"{place}/nobody")
    assert isinstance(nothing.exception, JobError)
    assert (nothing.exception.code, nothing.exception.exit_code) == ("GTJ0118", 7)
    other = run("status", "ftp://x/y").exception
    assert isinstance(other, JobError)
    assert other.code == "GTJ0107"


def test_why_it_failed(place: str, tmp_path: Path) -> None:
    """In the words of the run's own failure record."""
    said = run("explain", f"{place}/digits").output
    assert said.splitlines()[0] == "digits is Failed: out of GPU memory (GTJ0206)"
    assert "it saved no checkpoint" in said
    assert f"gtj explain GTJ0206\n        gtj logs {place}/digits" in said
    told = json.loads(run("explain", f"{place}/digits", "-o", "json").output)
    assert (told["code"], told["fault"], told["uri"]) == ("GTJ0206", True, f"{place}/digits")


def test_which_rank_failed_first_and_what_its_log_says(place: str, tmp_path: Path) -> None:
    make(tmp_path / "ranks", "vae", phase="Failed", step=40, checkpoint={"step": 30, "uri": "steps/30-a1"})
    failure = {
        "code": "GTJ0213",
        "what": "a worker was lost",
        "why": "killed",
        "rank": 1,
        "step": 41,
        "logTail": "one\ntwo",
        "how": "see why",
    }
    (tmp_path / "ranks" / "failure.json").write_text(json.dumps(failure))
    Record(tmp_path / "ranks", FileStore(tmp_path / "store" / "ranks")).look()
    found = json.loads(run("explain", f"{place}/ranks", "-o", "json").output)
    assert found["what"] == "a worker was lost"
    assert found["why"][:2] == ["killed", "first at rank 1, step 41"]
    assert found["why"][2].startswith("newest checkpoint: step 30, ")
    assert found["why"][2].endswith("/ranks/checkpoints/steps/30-a1") or "steps/30-a1" in found["why"][2]
    assert found["why"][3:] == ["log: one", "log: two"]
    assert found["do"] == ["see why"]
    assert found["next"][-1] == f"gtj logs {place}/ranks --rank 1"


def test_why_of_others(place: str, tmp_path: Path) -> None:
    assert run("explain", f"{place}/faces").output.splitlines()[0] == "faces is Succeeded: 100% 100/100 steps"
    make(tmp_path / "gone", "gan", phase="Running", step=3, updatedAt=1000.0)
    Record(tmp_path / "gone", FileStore(tmp_path / "store" / "gone")).look()
    assert "gone is Interrupted: 3% 3/100 steps, and nobody is training it" in run("explain", f"{place}/gone").output
    nothing = run("explain", f"{place}/nobody").exception
    assert isinstance(nothing, JobError)
    assert nothing.code == "GTJ0118"
