"""Two runs that part: in a metric, in a tensor, in what is kept beside them. The first step is named, and what is not the same there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, files_below, open_store
from trainjobs.report.difference import ABSENT, compared, tensors
from trainjobs.run.folder import Run

STEPS, SAVED = 6, (2, 4, 6)
Rows = dict[int, dict[str, Any]]
Weights = dict[int, dict[str, np.ndarray]]


def rows() -> Rows:
    return {step: {"loss": 1 / step, "kl": 0.1 * step, "samples": 8 * step} for step in range(1, STEPS + 1)}


def weights() -> Weights:
    return {step: {"in.weight": np.full((2, 3), step, np.float32), "out.bias": np.ones(3, np.float32)} for step in SAVED}


def made(path: Path, metrics: Rows, saved: Weights, metadata: dict[str, Any] | None = None, clock: float = 0.0) -> Run:
    """A run folder with these rows, and commits of one network and a text beside it."""
    run = Run(path)
    path.mkdir()
    lines = [json.dumps({"step": step, "time": clock + step, "throughput": clock, **row}) for step, row in metrics.items()]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    checkpoints = Checkpoints(open_store(run.checkpoints_uri()), keep=Keep(last=1000), now=lambda: clock)
    attempt = checkpoints.begin()
    for step, content in saved.items():
        prefix, shard = checkpoints.prefix(step, attempt), path / "shard"
        shard.mkdir(exist_ok=True)
        save_file(content, shard / "net.safetensors")
        (shard / "note.txt").write_text(f"step {step}")
        digest = checkpoints.put_shard(prefix, 0, files_below(shard))
        told = {"model": "sha256:0", **(metadata or {})}
        checkpoints.commit(prefix, attempt=attempt, step=step, samples=8 * step, digests=[digest], metadata=told, metrics={})
    return run


@pytest.fixture
def one(tmp_path: Path) -> Run:
    return made(tmp_path / "one", rows(), weights())


def test_the_same_at_another_time(one: Run, tmp_path: Path) -> None:
    result = compared(one, made(tmp_path / "other", rows(), weights(), clock=100.0))
    assert result.differences == ()
    assert (result.steps, result.metrics, result.checkpoints, result.files) == (STEPS, ("kl", "loss", "samples"), SAVED, 6)
    assert result.size == sum(path.stat().st_size for path in (one.path / "checkpoints").rglob("rank-0/*"))


def test_the_last_bit_of_a_loss(one: Run, tmp_path: Path) -> None:
    """Its step comes first, and its row before what was saved at that step."""
    metrics, saved = rows(), weights()
    metrics[4]["kl"] += 1
    metrics[4]["loss"] = float(np.nextafter(0.25, 1))
    saved[4]["out.bias"] = np.zeros(3, np.float32)
    found = compared(one, made(tmp_path / "other", metrics, saved)).differences
    assert [(difference.step, difference.quantity) for difference in found] == [
        (4, "loss"), (4, "kl"), (4, "rank-0/net.safetensors out.bias"),
    ]  # fmt: skip
    assert found[0].values == (0.25, 0.25000000000000006)


def test_a_tensor_of_an_early_checkpoint_comes_before_a_loss_of_a_later_step(one: Run, tmp_path: Path) -> None:
    metrics, saved = rows(), weights()
    metrics[3]["loss"] = 9.0
    saved[2]["in.weight"][1, 2] += 1e-6
    first = compared(one, made(tmp_path / "other", metrics, saved)).first
    assert first is not None
    assert (first.step, first.saved, first.quantity) == (2, True, "rank-0/net.safetensors in.weight")


def test_a_row_that_is_missing(one: Run, tmp_path: Path) -> None:
    metrics = rows()
    del metrics[5]
    first = compared(one, made(tmp_path / "other", metrics, weights())).first
    assert first is not None
    assert (first.step, first.quantity, first.values) == (5, "loss", (0.2, ABSENT))


def test_a_last_checkpoint_that_is_missing(one: Run, tmp_path: Path) -> None:
    saved = weights()
    del saved[6]
    (found,) = compared(one, made(tmp_path / "other", rows(), saved)).differences
    assert (found.step, found.quantity, found.values) == (6, "checkpoint", ("a checkpoint of step 6", ABSENT))


def test_what_is_kept_beside_the_tensors(one: Run, tmp_path: Path) -> None:
    first = compared(one, made(tmp_path / "other", rows(), weights(), {"objective": {"seen": 3}})).first
    assert first is not None
    assert (first.step, first.quantity, first.values[1]) == (2, "objective (kept with the checkpoint)", {"seen": 3})


def test_a_tensor_of_another_type_or_name(one: Run, tmp_path: Path) -> None:
    saved = weights()
    saved[2]["out.bias"] = np.ones(3, np.int32)
    saved[2]["more"] = np.zeros(1)
    found = [difference.quantity for difference in compared(one, made(tmp_path / "other", rows(), saved)).differences]
    assert found == ["rank-0/net.safetensors more", "rank-0/net.safetensors out.bias"]


def test_a_file_that_holds_no_tensors(one: Run, tmp_path: Path) -> None:
    other = made(tmp_path / "other", rows(), weights())
    for run, text in ((one, "a"), (other, "b")):
        folder = next((run.path / "checkpoints" / "steps").glob("000000000004-*"))
        manifest = folder / "rank-0.json"
        told = json.loads(manifest.read_text())
        told["files"][1]["digest"] = f"sha256:{text}"
        manifest.write_text(json.dumps(told))
    (found,) = compared(one, other).differences
    assert (found.step, found.quantity, found.values) == (4, "rank-0/note.txt", ("sha256:a", "sha256:b"))
    assert tensors(next(one.path.rglob("note.txt"))) == {}
