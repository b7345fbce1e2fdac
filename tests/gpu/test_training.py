"""The trainer on a GPU: against a plain torch loop there, and against itself after a stop.

The cases are those of tests/equivalence, with one worker, and their limits are wider than on a CPU by what GPU kernels round otherwise
when a batch comes in other pieces. Matrix products are in full fp32 (NVIDIA_TF32_OVERRIDE): the reference is a check of the algorithm.
"""

from __future__ import annotations

import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group
import plain
import test_resume as resume
import test_zero_matrix as matrix

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

EXACT = {"DS_ACCELERATOR": "cuda", "NVIDIA_TF32_OVERRIDE": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
CASES = [(family, stage, accumulation) for family in matrix.FAMILIES for stage, accumulation in product(matrix.stages(family), (1, 4))]
ALONE = [name for name, case in resume.ALL.items() if case[3] == 1]


def low(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "training": {**spec["training"], "precision": "bf16", "ema": None}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gpu")
    folders = []
    for family, stage, accumulation in CASES:
        spec = matrix.spec(family, stage, accumulation, 1)
        folders.append(str(group.prepare(root / f"{family}-z{stage}-a{accumulation}", spec)))
        if accumulation == 1:
            folders.append(str(group.prepare(root / f"{family}-z{stage}-bf16", low(spec))))
    group.run_group(1, folders, root, extra=EXACT)
    return root


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], plain.Result]:
    os.environ |= EXACT
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cache = tmp_path_factory.mktemp("plain")
    jobs = {(family, a): group.job(matrix.spec(family, 0, a, 1)) for family in matrix.FAMILIES for a in (1, 4)}
    return {case: plain.train(job, cache / case[0], device="cuda") for case, job in jobs.items()}


@pytest.mark.parametrize(("family", "stage", "accumulation"), CASES)
def test_follows_plain_torch(
    family: str, stage: int, accumulation: int, runs: Path, references: dict[tuple[str, int], plain.Result]
) -> None:
    matrix.follows(runs / f"{family}-z{stage}-a{accumulation}", references[family, accumulation], 1e-5)


@pytest.mark.parametrize(("family", "stage"), [(family, stage) for family in matrix.FAMILIES for stage in matrix.stages(family)])
def test_bf16_stays_near_fp32(family: str, stage: int, runs: Path, references: dict[tuple[str, int], plain.Result]) -> None:
    """bf16 has 8 bits of mantissa: two figures of a loss are the same."""
    for name, curve in references[family, 1].losses.items():
        assert group.losses(runs / f"{family}-z{stage}-bf16", name) == pytest.approx(curve, rel=2e-2, abs=2e-2), name


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("resume")
    resume.disturb(root, 1, ALONE, EXACT)
    return root


@pytest.mark.parametrize("case", ALONE)
def test_goes_on_to_the_last_bit(case: str, stopped: Path) -> None:
    resume.same(stopped, case)
