"""Weights go out with `gtj checkpoints export` and come in with `training.initialWeights`, at any ZeRO stage, by any number of workers, in
bf16 too: bit for bit. The learning rate of what follows is too small to move an fp32 number, so that what is saved is what came in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import group

from trainjobs.checkpoints import locate
from trainjobs.export.export import export

pytestmark = pytest.mark.slow

TEXT = "The quick brown fox jumps over the lazy dog, and nobody asks it why. "
LANGUAGE = {"network": {"layers": 1, "hidden": 36, "heads": 3, "contextLength": 16}, "tokenizer": {"type": "bpe", "vocabularySize": 300}}
GAN = {"generator": {"latentDim": 8, "channels": 4}, "discriminator": {"channels": 4}, "loss": {"type": "hinge"}}
STILL = {"optimizers": {"default": {"name": "adamw", "learningRate": 1e-30}}}
MOVING = {"optimizers": {"default": {"name": "adamw", "learningRate": 1e-2}}}


def spec(root: Path, workers: int, stage: int, training: dict[str, Any], *, steps: int = 2, gan: bool = False) -> dict[str, Any]:
    digits = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
    family = {"gan": GAN, "data": digits} if gan else {"language": LANGUAGE, "data": {"source": f"file://{root}/text"}}
    return {
        **family,
        "training": {"steps": steps, "batch": {"global": 4, "micro": 2}, "ema": {"decay": 0.5}, **training},
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 1},
    }


def exported(run: Path, weights: str = "live") -> dict[str, dict[str, Tensor]]:
    """The networks of the run's last checkpoint, through an export into <run>-<weights>."""
    checkpoints, commit = locate(f"file://{run}/checkpoints")
    folder = run.with_name(f"{run.name}-{weights}")
    if not folder.exists():
        export(checkpoints, commit, folder, weights=weights, dtype="fp32")
    return {path.stem: load_file(path) for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("initial")
    (root / "text").mkdir()
    (root / "text" / "a.txt").write_text(TEXT * 200)
    group.prepare(root / "source", spec(root, 2, 3, MOVING))
    group.run_group(2, [str(root / "source")], root)
    exported(root / "source")
    come_in = {**STILL, "initialWeights": f"file://{root}/source-live"}
    group.prepare(root / "z3-2", spec(root, 2, 3, come_in))
    group.prepare(root / "bf16-z2-2", spec(root, 2, 2, {**come_in, "precision": "bf16"}))
    group.run_group(2, [str(root / name) for name in ("z3-2", "bf16-z2-2")], root)
    group.prepare(root / "z0-1", spec(root, 1, 0, come_in))
    group.prepare(root / "z1-1", spec(root, 1, 1, {**STILL, "initialWeights": f"file://{root}/source-live/model.safetensors"}))
    resumed = {**spec(root, 1, 0, STILL, steps=3), "checkpoints": {"resumeFrom": f"file://{group.last_commit(root / 'source')}"}}
    group.prepare(root / "resumed", resumed)
    group.prepare(root / "gan", spec(root, 1, 0, MOVING, gan=True))
    group.run_group(1, [str(root / name) for name in ("z0-1", "z1-1", "resumed", "gan")], root)
    exported(root / "gan")
    group.prepare(root / "gan-again", spec(root, 1, 0, {**STILL, "initialWeights": f"file://{root}/gan-live"}, gan=True))
    # The folder is gone when the run goes on from its own checkpoint.
    group.run_group(1, [str(root / "gan-again")], root)
    (root / "gan-live").rename(root / "gan-live-gone")
    group.prepare(root / "gan-again", spec(root, 1, 0, {**STILL, "initialWeights": f"file://{root}/gan-live"}, steps=3, gan=True))
    group.run_group(1, [str(root / "gan-again")], root)
    (root / "gan-live-gone").rename(root / "gan-live")
    return root


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("weights", ["live", "ema"])
def test_an_export_is_what_the_ranks_saved(weights: str, root: Path) -> None:
    """Put together by the safetensors library and group.py, which share no code with it."""
    for run in ("source", "z0-1", "bf16-z2-2"):
        same(exported(root / run, weights)["model"], group.weights(root / run, "model", "fp32" if weights == "live" else "ema"))


def test_two_workers_at_stage_3_and_one_at_stage_0_export_the_same(root: Path) -> None:
    same(exported(root / "resumed")["model"], exported(root / "source")["model"])


@pytest.mark.parametrize("run", ["z3-2", "bf16-z2-2", "z0-1", "z1-1"])
def test_weights_come_in_as_they_went_out(run: str, root: Path) -> None:
    same(exported(root / run)["model"], exported(root / "source")["model"])
    record = json.loads((group.last_commit(root / run) / "MANIFEST.json").read_text())
    assert record["step"] == 2


@pytest.mark.parametrize("run", ["z3-2", "z0-1", "z1-1", "bf16-z2-2"])
def test_losses_are_those_that_transformers_finds(run: str, root: Path) -> None:
    from transformers import AutoModelForCausalLM

    from trainjobs.api.job import Job
    from trainjobs.data import open_source
    from trainjobs.noise import Noise

    exported(root / "source")
    model = AutoModelForCausalLM.from_pretrained(root / "source-live").eval()
    job = Job.model_validate_json((root / run / "job.json").read_text())
    source = open_source(job.spec, root / run / "cache")
    expected = []
    for step in (0, 1):
        positions = torch.arange(4 * step, 4 * step + 4)
        tokens = source.batch(positions, 0, Noise.of(0, step, "x", positions))["tokens"]
        with torch.no_grad():
            logits = model(input_ids=tokens[:, :-1]).logits
        expected.append(float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())))
    bf16 = run.startswith("bf16")
    assert group.losses(root / run) == pytest.approx(expected, rel=2e-2 if bf16 else 1e-5)
    assert expected[0] < 0.98 * group.losses(root / "source")[0]  # else they could be those of untrained weights


def test_the_average_begins_with_the_weights(root: Path) -> None:
    same(exported(root / "z3-2", "ema")["model"], exported(root / "source")["model"])


def test_every_network_of_a_gan_and_not_again_after_a_restart(root: Path) -> None:
    trained, again = exported(root / "gan"), exported(root / "gan-again")
    assert trained.keys() == again.keys() == {"generator", "discriminator"}
    for name in trained:
        assert trained[name].keys() == again[name].keys()
        learned = [key for key in trained[name] if "running_" not in key and "num_batches" not in key]
        assert all(torch.equal(trained[name][key], again[name][key]) for key in learned)
    counts = [key for key in trained["generator"] if key.endswith("num_batches_tracked")]
    assert counts
    # Statistics of batches come in as well: the counters go on.
    assert all(again["generator"][key] > trained["generator"][key] for key in counts)


def test_a_tensor_of_another_shape_ends_the_run(root: Path) -> None:
    tensors = dict(exported(root / "source")["model"])
    tensors["transformer.h.0.mlp.c_fc.bias"] = torch.zeros(3)
    save_file(tensors, root / "misshapen.safetensors")
    group.prepare(root / "refused", spec(root, 1, 0, {**STILL, "initialWeights": f"file://{root}/misshapen.safetensors"}))
    with pytest.raises(AssertionError, match=r"GTJ0208.*transformer\.h\.0\.mlp\.c_fc\.bias is \[3\] there and \[144\] here"):
        group.run_group(1, [str(root / "refused")], root)
