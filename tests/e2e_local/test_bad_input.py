"""What a user may get wrong, typed as the user types it: one message with its code, the documented exit status, nothing lost.

Bad disks and damaged checkpoints are in test_bad_disk.py, training that fails in test_bad_training.py.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shell import SPEC, Shell, explained, refused, small_disk

pytestmark = pytest.mark.slow

POINTS = {"architecture": "mlp"}
PENALTY = {"generator": POINTS, "discriminator": POINTS, "loss": {"type": "wgan-gp", "gradientPenalty": 10, "criticSteps": 2}}


def training(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SPEC["training"]), **parts}


@pytest.mark.parametrize(
    ("parts", "code", "phrases"),
    [
        ({"training": training(stpes=6)}, "GTJ0101", ["job.yaml:", "stpes", 'did you mean "steps"?']),
        ({"training": training(steps="many")}, "GTJ0105", ["spec.training.steps", "many"]),
        ({"gan": {}}, "GTJ0106", ["gan", "vae", "exactly one"]),
        ({"vae": None}, "GTJ0106", ["exactly one", "gan, vae, diffusion, language"]),
        (
            {"training": training(batch={"global": 9}), "compute": {"workers": 2, "gpusPerWorker": 0}},
            "GTJ0103",
            ["9", "2 workers", "8 or 10"],
        ),
        ({"training": training(batch={"global": 8, "micro": 3})}, "GTJ0103", ["micro", "3"]),
        ({"vae": None, "gan": PENALTY, "data": {"source": "builtin:ring"}, "deepspeed": {"stage": 3}}, "GTJ0104", ["stage", "0, 1, 2"]),
        ({"data": {"source": "file://~/faces"}}, "GTJ0107", ["absolute path", "file://$HOME/faces"]),
    ],
)
def test_a_manifest_that_is_wrong(shell: Shell, parts: dict[str, Any], code: str, phrases: list[str]) -> None:
    shell.manifest(**parts)
    for done in (shell.train(), shell.gtj("validate", "-f", "job.yaml")):
        assert done.returncode == 3, done.stderr
        assert f" {code} " in done.stderr
        for phrase in phrases:
            assert phrase in done.stderr, done.stderr
    assert not shell.run.path.exists()


def pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        Image.new("L", (8, 8), number).save(folder / f"{number:04d}.png")


def text_job(folder: Path) -> dict[str, Any]:
    network = {"architecture": "gpt2", "layers": 1, "hidden": 16, "heads": 2, "contextLength": 64}
    return {
        "vae": None,
        "language": {"network": network, "tokenizer": {"type": "byte"}},
        "data": {"source": f"file://{folder}"},
    }


def data_job(folder: Path) -> dict[str, Any]:
    return {"data": {"source": f"file://{folder}", "images": {"size": 8, "channels": 1}}}


def missing(folder: Path) -> dict[str, Any]:
    return data_job(folder)


def empty(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return data_job(folder)


def no_image(folder: Path) -> dict[str, Any]:
    pictures(folder, 40)
    (folder / "0007.png").write_text("a letter to mother")
    return data_job(folder)


def other_files(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "table.csv").write_text("1,2\n")
    return data_job(folder)


def short_text(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "haiku.txt").write_text("an old silent pond")
    return text_job(folder)


@pytest.mark.parametrize(
    ("make", "phrases"),
    [
        (missing, ["the data does not exist", "where: {data}", "holds job.yaml", "how:   mend data.source"]),
        (empty, ["the folder is empty", "where: {data}", "put data there"]),
        (no_image, ["0007.png is not a readable image", "where: {data}/0007.png", "replace or remove the file"]),
        (other_files, ["the data holds no images", "found 1 × .csv", "known are .bmp"]),
        (short_text, ["the text is too short", "tokens found, ", "needed for two sequences of 64", "lower language.network.contextLength"]),
    ],
)
def test_data_that_cannot_be_learnt_from(shell: Shell, make: Any, phrases: list[str]) -> None:
    """Found by the driver before torch and Ray are loaded: with them it would take ten times as long."""
    data = shell.path / "faces"
    shell.manifest(**make(data))
    shell.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "run")
    assert loaded(shell) >= {"trainjobs", "PIL"}
    assert not loaded(shell) & HEAVY
    refused(done, "GTJ0113", 7, *(phrase.format(data=data) for phrase in phrases), "logs/driver.log", "report.html")
    explained(shell.run, "GTJ0113")
    assert not (shell.run.path / "ray").exists()
    assert not (shell.run.path / "checkpoints" / "log").exists()


HEAVY = {"torch", "ray"}


def loaded(shell: Shell) -> set[str]:
    """Packages that the driver and what it started say they imported (PYTHONPROFILEIMPORTTIME)."""
    lines = shell.run.path.joinpath("logs", "driver.log").read_text()
    return set(re.findall(r"^import time: .* (\w+)$", lines, re.MULTILINE))


def test_a_mended_dataset_trains_in_the_same_folder(shell: Shell) -> None:
    shell.manifest(**data_job(shell.path / "faces"))
    refused(shell.train(), "GTJ0113", 7)
    pictures(shell.path / "faces", 40)
    shell.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    done = shell.train()
    assert done.returncode == 0, done.stderr
    assert "torch" in loaded(shell)
    assert shell.run.failure() is None


def test_a_broken_image_that_no_sample_of_the_folder_shows(shell: Shell) -> None:
    """The look at the data takes some images of many; what it did not see, the worker says the same way."""
    pictures(shell.path / "faces", 130)
    shell.manifest(**data_job(shell.path / "faces"))
    (shell.path / "faces" / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    refused(shell.train(), "GTJ0113", 7, "0001.png is not a readable image")
    explained(shell.run, "GTJ0113")


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/run", "/proc/run"])
def test_a_run_folder_that_cannot_be(shell: Shell, place: str) -> None:
    """Nobody may write there, not even root."""
    shell.manifest()
    (shell.path / "notes.txt").write_text("mine")
    done = shell.gtj("run", "-f", "job.yaml", "--run-dir", place)
    refused(done, "GTJ0114", 7, "the run folder cannot be written", f"where: {place}", "--run-dir")
    assert (shell.path / "notes.txt").read_text() == "mine"


def test_a_run_folder_on_a_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m,ro") as shell:
        shell.manifest()
        done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "disk/run")
        refused(done, "GTJ0114", 7, "where: disk/run", "Read-only file system")
        shell.manifest(checkpoints={"uri": f"file://{tmp_path}/disk/runs"})
        refused(shell.train(), "GTJ0114", 7, "checkpoints cannot be written", "Read-only file system", "checkpoints.uri")


def test_a_run_folder_of_another_manifest(trained: Shell) -> None:
    before = trained.gtj("checkpoints", "ls", "run", "-o", "json").stdout
    done = trained.train("--set", "training.seed=1")
    refused(done, "GTJ0115", 2, "belongs to another manifest", "where: run", "training.seed was 0, is 1", "--fresh")
    refused(trained.train("--steps", 5), "GTJ0115", 2, "the run is at step 6 and the manifest asks for 5")
    assert trained.gtj("checkpoints", "ls", "run", "-o", "json").stdout == before
    assert trained.gtj("checkpoints", "verify", "run").returncode == 0
    assert trained.run.progress()["phase"] == "Succeeded"


def test_more_workers_than_cores(shell: Shell) -> None:
    shell.manifest()
    done = shell.gtj("run", "-f", "job.yaml", "--workers", 4096, "--set", "training.batch.global=4096")
    refused(done, "GTJ0116", 4, "4096 workers on ", "where: spec.compute.workers", "how:   gtj run --workers ")
    assert not shell.run.path.exists()
