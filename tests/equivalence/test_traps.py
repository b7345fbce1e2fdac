"""What DeepSpeed does otherwise than one would think, each as a fact measured against plain torch (see probes.py).

Two kinds of tests. Most say that the trainer is right where a trap lies. Those named `canary` say that the trap is still there: one of
them failing means that DeepSpeed has changed, not that the trainer is wrong. Read its notes, and see whether code that goes round the
trap can go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import group

pytestmark = pytest.mark.slow

DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
RUNS: dict[str, dict[str, Any]] = {
    # Batch norm in the generator: every worker has statistics of its own.
    "gan": {
        "gan": {"generator": {"latentDim": 4, "channels": 4}, "discriminator": {"channels": 4}, "loss": {"type": "wgan-gp"}},
        "data": DIGITS,
        "deepspeed": {"stage": 2},
    },
    "language": {
        "language": {"network": {"layers": 1, "hidden": 16, "heads": 2, "contextLength": 8}},
        "data": {"source": "builtin:stdlib-text"},
        "deepspeed": {"stage": 3},
    },
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that is new to the workers, with compilers that only leave a note."""
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    for name in ("c++", "g++", "gcc", "cc", "clang", "ninja", "nvcc"):
        path = home / "bin" / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> {home}/compiled\nexit 1\n')
        path.chmod(0o755)
    return home


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, home: Path) -> list[dict[str, Any]]:
    """What two workers found, by rank."""
    import os

    root = tmp_path_factory.mktemp("traps")
    for name, family in RUNS.items():
        training = {"steps": 2, "batch": {"global": 8, "micro": 2}}
        compute = {"workers": 2, "gpusPerWorker": 0}
        group.prepare(
            root / "runs" / name, {**family, "training": training, "compute": compute, "evaluation": {"samples": 1, "everySteps": 1}}
        )
    new = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TORCH_EXTENSIONS_DIR": str(home / "extensions"),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
    }
    group.run_group(2, [str(root)], root, script="probes.py", extra=new)
    result: list[dict[str, Any]] = json.loads((root / "found.json").read_text())
    assert len(result) == 2
    return result


# --- 1. Losses call the network, never the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_gradient_penalty_is_exact(stage: int, found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank[f"gradient_penalty-{stage}"] <= 1e-6


@pytest.mark.parametrize("stage", [0, 2])
def test_canary_gradient_penalty_through_the_engine_fails(stage: int, found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank[f"gradient_penalty_through_engine-{stage}"] is not None


def test_engine_is_never_called(found: list[dict[str, Any]]) -> None:
    """The probe trains whole runs with an engine whose forward raises."""
    for rank in found:
        assert set(rank["runs"]) == set(RUNS)


# --- 2. Backward as often as you like, step applies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_several_backwards_are_exact_and_not_clipped(stage: int, found: list[dict[str, Any]]) -> None:
    """To 1e-6 in the weights, over two steps; and with a norm above 1, which DeepSpeed's default of `gradient_clipping` would cut."""
    for rank in found:
        measured = rank[f"several_backwards-{stage}"]
        assert min(measured["norms"]) > 2.0
        assert max(measured["errors"]) <= 1e-6


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_canary_managed_accumulation_is_silently_wrong(stage: int, found: list[dict[str, Any]]) -> None:
    """Why `managed_gradient_accumulation: false` is written out."""
    for rank in found:
        off = rank[f"managed_default-{stage}"]
        assert isinstance(off, float), f"an error at last: {off}"
        assert off > 0.1


def test_canary_stage_3_keeps_the_last_micro_batch_only(found: list[dict[str, Any]]) -> None:
    """Why Engine.backward calls `clear_backward_seen_flag`: DeepSpeed counts micro-batches in its forward, which nobody calls."""
    for rank in found:
        off = rank["uncounted-3"]
        assert off["last"] <= 1e-6
        assert off["exact"] > 0.1


# --- 3. Weights edited in place -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "kept"), [(0, 1.0), (1, 0.0), (2, 0.0), (3, 0.0)])
def test_canary_weights_edited_in_place_are_lost(stage: int, kept: float, found: list[dict[str, Any]]) -> None:
    """Why weight clipping and the like belong into the optimizer's step. Ema.applied lives with it: it puts the weights back."""
    for rank in found:
        assert rank[f"edit_in_place-{stage}"] == kept


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_moving_average_is_applied_and_taken_back(stage: int, precision: str, found: list[dict[str, Any]]) -> None:
    """The network holds the average, rounded to its type, within the block, and its weights to the last bit after it."""
    for rank in found:
        measured = rank[f"moving_average-{stage}"][precision]
        assert measured["moved"] > 1e-3
        assert measured["within"] <= 1e-7
        assert measured["restored"] is True
        assert measured["restored after an error"] is True


# --- Adam's first step in bf16 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_adam_begins_with_a_whole_step(stage: int, found: list[dict[str, Any]]) -> None:
    """Its first update is the rate, whatever the gradient. The mean over 257 weights bears bf16's rounding."""
    for rank in found:
        assert rank[f"first_update-{stage}"] == pytest.approx(0.01, rel=0.05)


# --- 6. transformers does not hear of ZeRO-3 ----------------------------------------------------------------------------------------


def test_no_other_model_is_partitioned(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["partitioned_elsewhere-3"] == {"zero3": False, "ours": True, "other": False}


# --- 8. Nothing is compiled at the start --------------------------------------------------------------------------------------------


def test_nothing_is_compiled(found: list[dict[str, Any]], home: Path) -> None:
    """Even where TORCH_EXTENSIONS_DIR is set: with the op not installed, it names a place for compiled things, and no more."""
    assert not (home / "compiled").exists(), (home / "compiled").read_text()
    assert not [path for path in home.rglob("*") if path.suffix in {".so", ".o", ".ninja", ".cpp"}]


# --- 10. Buffers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_buffers_are_rank_0s_once_shared(stage: int, found: list[dict[str, Any]]) -> None:
    first, second = (rank[f"buffers-{stage}"] for rank in found)
    assert first["before"] != second["before"]
    assert first["after"] == second["after"] == first["before"]


def test_every_worker_evaluates_with_rank_0s_buffers(found: list[dict[str, Any]]) -> None:
    """The run of a GAN with batch norm noted its statistics before they were shared and when it was looked at, at each of two steps."""
    first, second = (rank["runs"]["gan"] for rank in found)
    assert len(first) == len(second) == 4
    for before, seen in ((0, 1), (2, 3)):
        assert first[before]
        assert first[before] != second[before]
        assert first[seen] == second[seen] == first[before]
