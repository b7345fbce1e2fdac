"""A teacher is built from what its export says, is frozen, and teaches what it is asked for: against its own outputs and torch's losses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.training import Distillation
from trainjobs.checkpointer.teacher import with_teacher
from trainjobs.data.source import DataInfo
from trainjobs.models.unet import UNet
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.distillation import TEACHER, taught
from trainjobs.objectives.phase import Batch, Phase
from trainjobs.stores.store import Digest
from trainjobs.world import World

CPU = World(0, 1, torch.device("cpu"))
INFO = DataInfo(kind="image", shape=(1, 8, 8), length=8, heldout=0)
LARGER = {"network": {"channels": 8, "blocks": 2}, "process": {"prediction": "v"}}


def pupil(teacher: Path, **process: Any) -> Spec:
    family = {"network": {"channels": 8}, "process": {"prediction": "v", **process}}
    training = {"steps": 4, "distillation": {"teacher": f"file://{teacher}", "weight": 0.75}}
    return Spec.model_validate({"diffusion": family, "data": {"source": "builtin:digits", "images": {"size": 8}}, "training": training})


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, nn.Module]:
    """As `gtj checkpoints export` leaves it."""
    torch.manual_seed(1)
    network = UNet(image_channels=1, channels=8, multipliers=[1, 2], blocks=2, attention=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    folder = tmp_path / "teacher"
    folder.mkdir()
    spec = Spec.model_validate({"diffusion": LARGER, "data": {"source": "builtin:digits"}, "training": {"steps": 1}})
    assert spec.diffusion is not None
    told = {"family": "diffusion", "spec": {"diffusion": spec.diffusion.model_dump(mode="json", by_alias=True), "images": {}}}
    (folder / "gentrain.json").write_text(json.dumps(told))
    save_file(network.state_dict(), folder / "denoiser.safetensors")
    return folder, network


def test_teacher_is_the_network_that_was_exported(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, network = exported
    spec = pupil(folder)
    torch.manual_seed(0)
    alone = build(spec, INFO)
    torch.manual_seed(0)
    found = with_teacher(build(spec, INFO), spec, INFO, CPU, tmp_path)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 900])
    assert torch.equal(found.modules[TEACHER](x, t), network(x, t))
    assert found.networks[TEACHER].groups == {}
    assert all(torch.equal(one, other) for one, other in zip(alone.modules["denoiser"].parameters(), found.modules["denoiser"].parameters(),
                                                             strict=True))  # fmt: skip


def test_loss_is_the_mixture_with_the_difference_of_outputs(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    spec = pupil(exported[0])
    found = with_teacher(build(spec, INFO), spec, INFO, CPU, tmp_path)
    denoiser, batch = found.modules["denoiser"], Batch({"image": torch.randn(4, 1, 8, 8)}, Noise.of(0, 1, "train.0", torch.arange(4)), 4)
    seen: list[Any] = []
    denoiser.register_forward_hook(lambda network, arguments, output: seen.append((arguments, output)))
    (phase,) = taught(found.objective.phases, found.modules, spec.training.distillation)
    loss, metrics = phase.loss(batch)
    ((arguments, output),) = seen
    expected = nn.functional.mse_loss(output, exported[1](*arguments))
    torch.testing.assert_close(metrics["distillation"], expected.detach())
    torch.testing.assert_close(loss, 0.25 * metrics["loss"] + 0.75 * expected)
    loss.backward()
    assert all(parameter.grad is None for parameter in found.modules[TEACHER].parameters())


def test_tokens_are_taught_by_their_divergence() -> None:
    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 5)

        def forward(self, input_ids: torch.Tensor) -> Any:
            return SimpleNamespace(logits=self.table(input_ids))

    torch.manual_seed(0)
    ours, theirs, tokens = Logits(), Logits(), torch.arange(10).view(2, 5) % 5
    phase = Phase("train", "model", lambda batch: (ours(input_ids=tokens).logits.square().mean(), {}))
    (found,) = taught([phase], {"model": ours, TEACHER: theirs}, Distillation(teacher="s3://b/x", weight=1.0))
    loss, _ = found.loss(Batch({}, Noise.of(0, 0, "x", torch.arange(2)), 2))
    p, q = (torch.distributions.Categorical(logits=each(tokens).logits) for each in (theirs, ours))
    torch.testing.assert_close(loss, torch.distributions.kl_divergence(p, q).mean())


def test_a_teacher_of_something_else_is_refused(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    spec = pupil(exported[0], prediction="epsilon")
    with pytest.raises(JobError, match="another thing") as refused:
        with_teacher(build(spec, INFO), spec, INFO, CPU, tmp_path)
    assert (refused.value.code, "prediction v there, epsilon here" in refused.value.why) == ("GTJ0208", True)
    (tmp_path / "gentrain.json").write_text(json.dumps({"family": "vae", "spec": {"vae": {}}}))
    spec = pupil(tmp_path)
    with pytest.raises(JobError, match="another family") as refused:
        with_teacher(build(spec, INFO), spec, INFO, CPU, tmp_path)
    assert (refused.value.code, refused.value.why) == ("GTJ0208", "it is of family vae")
    (tmp_path / "gentrain.json").unlink()
    with pytest.raises(JobError, match="there is no teacher") as refused:
        with_teacher(build(spec, INFO), spec, INFO, CPU, tmp_path)
    assert refused.value.code == "GTJ0118"


@pytest.mark.parametrize(
    ("theirs", "ours", "why"),
    [
        (b"one", b"other", "weights.safetensors differs between the teacher's autoencoder and the pupil's"),
        (b"one", None, "it learned latents, and the pupil learns pictures"),
        (None, b"other", "it learned pictures, and the pupil learns latents"),
        (b"one", b"one", ""),
    ],
)
def test_a_teacher_of_other_latents_is_refused(
    exported: tuple[Path, nn.Module], tmp_path: Path, theirs: bytes | None, ours: bytes | None, why: str
) -> None:
    folder = exported[0]
    told = json.loads((folder / "gentrain.json").read_text())
    if theirs is not None:
        (folder / "vae").mkdir()
        (folder / "vae" / "weights.safetensors").write_bytes(theirs)
        (folder / "gentrain.json").write_text(json.dumps({**told, "autoencoder": ["vae/weights.safetensors"]}))
    digest = Digest()
    digest.update(ours or b"")
    encoder = None if ours is None else {"weights.safetensors": str(digest)}
    info, spec = replace(INFO, encoder=encoder), pupil(folder)
    if not why:
        assert TEACHER in with_teacher(build(spec, info), spec, info, CPU, tmp_path).modules
        return
    with pytest.raises(JobError, match="latents of another autoencoder") as refused:
        with_teacher(build(spec, info), spec, info, CPU, tmp_path)
    assert (refused.value.code, refused.value.why) == ("GTJ0208", why)
