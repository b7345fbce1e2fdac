"""Checkpoints that an earlier version has written (write.py says which) are restored to the last bit, and their runs go on.

By as many workers as wrote them and by as many as did not: a GAN with batch norm at ZeRO stage 2, an objective with state of its own at
stage 0, a language model in bf16 at stage 3.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpointer.whole import BEFORE, CASES, WORKER, digest, of_size, restored
from tests.equivalence import group

SIZES = (1, 2)


def expected(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BEFORE / case / "expected.json").read_text())
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, copied as <case>-<workers>, restored and trained to its end by so many workers."""
    root = tmp_path_factory.mktemp("before")
    for size in SIZES:
        runs = [str(shutil.copytree(BEFORE / case, root / f"{case}-{size}")) for case in CASES]
        group.run_group(size, runs, root, script=WORKER)
    return root


def test_all_cases_are_there() -> None:
    assert CASES == ["custom", "gan", "language"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_expected_is_what_the_files_hold(case: str) -> None:
    """Read by the safetensors library, not by this project. Left out: `live`, which is in no file, and what ranks have of their own."""
    told = expected(case)["tensors"]
    kinds = {tuple(name.split("/")[:2]) for name in told if "/live/" not in name and "/buffer/" not in name}
    found = {
        f"{network}/{kind}/{parameter}": digest(tensor)
        for network, kind in kinds
        for parameter, tensor in group.weights(BEFORE / case, network, kind).items()
    }
    assert found == {name: told[name] for name in told if "/live/" not in name and "/buffer/" not in name}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_every_bit_is_restored(case: str, size: int, root: Path) -> None:
    ours, theirs = restored(root / f"{case}-{size}", size), of_size(expected(case), size)
    tensors, others = ours.pop("tensors"), theirs.pop("tensors")
    passed_over = [name for name in others if name.startswith("discriminator/ema/")]  # averaged then, and wanted by nobody now
    assert len(passed_over) == (6 if case == "gan" else 0)
    others = {name: digest for name, digest in others.items() if name not in passed_over}
    assert ours == theirs  # step, samples, the objective's state, what is usual of the losses
    assert {name: (others.get(name), tensors.get(name)) for name in others | tensors if others.get(name) != tensors.get(name)} == {}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_the_run_goes_on_to_its_end(case: str, size: int, root: Path) -> None:
    run = root / f"{case}-{size}"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row or "loss/G" in row] == [7, 8, 9, 10, 11, 12]
    assert group.last_commit(run).name.startswith(f"{12:012d}-")


def test_canary_one_bit_is_seen() -> None:
    ours = torch.tensor([1.0, 2.0])
    other = ours.clone()
    other.view(torch.int32)[1] += 1
    assert digest(ours) != digest(other)
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))


def test_canary_the_data_tells_ranks_kinds_and_objectives_apart() -> None:
    """Were all buffers alike on both ranks, or no state kept, restoring the wrong ones would pass."""
    gan, language = expected("gan")["tensors"], expected("language")["tensors"]
    mean = "generator/buffer/layers.1.running_mean"
    assert gan[mean] != gan[f"rank 1: {mean}"]
    assert gan["generator/fp32/layers.0.weight"] != gan["generator/ema/layers.0.weight"]
    assert {told.split()[0] for name, told in language.items() if "/live/" in name} == {"bfloat16"}
    assert expected("custom")["objective"]["calls"] == 24
    assert expected("gan")["losses"]["loss/D"][0] == 6
