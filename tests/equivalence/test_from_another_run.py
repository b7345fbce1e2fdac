"""A run that begins from another run's checkpoint: another objective, another optimizer, a new moving average; and what is refused.

The learning rate is so small that no weight moves, so the weights that a run ends with are those it was given.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group

pytestmark = pytest.mark.slow

STEPS = 3
ADAMW = {"name": "adamw", "learningRate": 1e-2}


def spec(**parts: Any) -> dict[str, Any]:
    return {
        "vae": {"network": {"channels": 4, "latentDim": 4}},
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
        "training": {"steps": STEPS, "batch": {"global": 8}, "optimizers": {"default": ADAMW}},
        "deepspeed": {"stage": 1},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 1},
        **parts,
    }


def onward(optimizer: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    still = {**(optimizer or ADAMW), "learningRate": 1e-30}
    return {"steps": STEPS + 1, "batch": {"global": 8}, "optimizers": {"default": still}, **more}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("another")
    run = group.prepare(root / "first", spec())
    group.run_group(1, [str(run)], root)
    return run


def begun(first: Path, folder: Path, **parts: Any) -> Path:
    """A run from the first one's checkpoint. AssertionError with its output when it is refused."""
    checkpoints = {"resumeFrom": f"file://{first}/checkpoints", **parts.pop("checkpoints", {})}
    run = group.prepare(folder / "second", spec(checkpoints=checkpoints, **parts))
    group.run_group(1, [str(run)], folder)
    return run


def same(ours: Path, theirs: Path, kind: str = "fp32") -> None:
    expected, found = group.weights(theirs, "autoencoder"), group.weights(ours, "autoencoder", kind)
    assert found.keys() == expected.keys()
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


def test_another_objective_over_the_same_tensors(first: Path, tmp_path: Path) -> None:
    other = {"network": {"channels": 4, "latentDim": 4}, "loss": {"beta": 4.0, "reconstruction": "bce"}}
    run = begun(first, tmp_path, vae=other, training=onward())
    same(run, first)
    steps = group.weights(run, "autoencoder", "step")
    assert {float(value) for value in steps.values()} == {STEPS + 1}, "the optimizer's state came along"


def test_another_optimizer_takes_the_weights_when_it_may(first: Path, tmp_path: Path) -> None:
    sgd = {"name": "sgd", "momentum": 0.9}
    with pytest.raises(AssertionError, match=r"GTJ0208 .* autoencoder: adamw there, sgd here"):
        begun(first, tmp_path / "refused", training=onward(sgd))
    run = begun(first, tmp_path, training=onward(sgd), checkpoints={"allowOptimizerReset": True})
    same(run, first)
    assert group.weights(run, "autoencoder", "momentum_buffer")


def test_a_moving_average_that_is_new_begins_with_the_weights(first: Path, tmp_path: Path) -> None:
    averaged = onward(ema={"decay": 0.5})
    with pytest.raises(AssertionError, match=r"GTJ0208 .* no moving average there"):
        begun(first, tmp_path / "refused", training=averaged)
    run = begun(first, tmp_path, training=averaged, checkpoints={"allowOptimizerReset": True})
    same(run, first)
    same(run, first, "ema")


def test_another_model_is_refused_with_the_tensors_that_differ(first: Path, tmp_path: Path) -> None:
    wider = {"network": {"channels": 8, "latentDim": 4}}
    with pytest.raises(AssertionError, match=r"GTJ0208 .* of another model .*autoencoder\.\S+ is \[.+\] there and \[.+\] here"):
        begun(first, tmp_path, vae=wider, training=onward())
