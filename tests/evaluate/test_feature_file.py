"""Features of a file: TorchScript and torch.export are read, from any store; what is pickled in them is not run."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.evaluate.feature_file import read

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self, classes: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last, self.classes = nn.Conv2d(3, 5, 3, stride=2), nn.Linear(5, 4), classes

    def forward(self, x: Tensor) -> Any:
        features = self.layer(x).mean(dim=(2, 3))
        return (features, self.last(features)) if self.classes else features


def scripted(path: Path, classes: bool = False) -> str:
    torch.jit.trace(Net(classes).eval(), torch.zeros(2, 3, 8, 8)).save(str(path))
    return f"file://{path}"


def exported(path: Path, *, dynamic: bool = True) -> str:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes), path)
    return f"file://{path}"


@pytest.mark.parametrize("kind", ["pt", "ts"])
def test_torchscript_is_read(kind: str, tmp_path: Path) -> None:
    features = read(scripted(tmp_path / f"net.{kind}"), CPU, (8, 8))
    images = torch.rand(5, 3, 8, 8) * 2.0 - 1.0
    found, logits = features.of(images)
    assert torch.allclose(found, Net()(images), atol=1e-6)
    assert logits is None
    assert features.name == "file"
    assert torch.equal(features.of(images[:, :1])[0], features.of(images[:, :1].repeat(1, 3, 1, 1))[0]), "grey is every colour alike"


def test_classes_are_the_second_answer(tmp_path: Path) -> None:
    _, logits = read(scripted(tmp_path / "net.pt", classes=True), CPU, (8, 8)).of(torch.zeros(3, 3, 8, 8))
    assert logits is not None
    assert logits.shape == (3, 4)


@pytest.mark.slow
def test_torch_export_is_read(tmp_path: Path) -> None:
    features = read(exported(tmp_path / "net.pt2"), CPU, (8, 8))
    images = torch.rand(7, 3, 8, 8) * 2.0 - 1.0
    assert torch.allclose(features.of(images)[0], Net()(images), atol=1e-6)


def test_the_digest_is_of_the_file(tmp_path: Path) -> None:
    one, other = (read(scripted(tmp_path / f"{classes}.pt", classes), CPU, (8, 8)).digest for classes in (False, True))
    assert one != other
    assert one == read(f"file://{tmp_path}/False.pt", CPU, (8, 8)).digest


class Harm:
    def __reduce__(self) -> Any:
        return (os.mkdir, (str(Harm.path),))

    path = Path()


@pytest.mark.slow
def test_what_is_pickled_in_an_exported_file_is_not_run(tmp_path: Path) -> None:
    """torch.export.load itself unpickles whatever is no plain weight."""
    uri, Harm.path = exported(tmp_path / "net.pt2"), tmp_path / "harm"
    buffer = io.BytesIO()
    torch.save((Harm(),), buffer)
    with zipfile.ZipFile(tmp_path / "net.pt2") as before, zipfile.ZipFile(tmp_path / "bad.pt2", "w", zipfile.ZIP_STORED) as after:
        for item in before.infolist():
            bad = "sample_inputs" in item.filename or item.filename.endswith(".pt")
            after.writestr(item, buffer.getvalue() if bad else before.read(item))
    with contextlib.suppress(Exception):  # whatever it makes of it, it has run it by then
        torch.export.load(tmp_path / "bad.pt2")
    assert Harm.path.is_dir(), "the file is as bad as it is meant to be"
    Harm.path.rmdir()
    with pytest.raises(JobError) as raised:
        read(uri.replace("net.pt2", "bad.pt2"), CPU, (8, 8))
    assert raised.value.code == "GTJ0102"
    assert not Harm.path.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    Harm.path = tmp_path / "harm"
    torch.save(Harm(), tmp_path / "net.pt")
    with pytest.raises(JobError) as raised:
        read(f"file://{tmp_path}/net.pt", CPU, (8, 8))
    assert raised.value.code == "GTJ0102"
    assert "torch.jit.save" in raised.value.how
    assert not Harm.path.exists()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        read(f"file://{tmp_path}/none.pt", CPU, (8, 8))
    assert raised.value.code == "GTJ0118"
    assert "none.pt" in str(raised.value)


def test_a_network_that_takes_something_else(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(4, 2), torch.zeros(2, 4)).save(str(tmp_path / "net.pt"))
    with pytest.raises(JobError) as raised:
        read(f"file://{tmp_path}/net.pt", CPU, (8, 8))
    assert (raised.value.code, raised.value.what) == ("GTJ0102", "the network of features does not take pictures")
    assert "[2, 3, 8, 8]" in raised.value.why


@pytest.mark.slow
def test_a_network_for_two_pictures_alone_is_told_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        read(exported(tmp_path / "net.pt2", dynamic=False), CPU, (8, 8))
    assert raised.value.code == "GTJ0102"
    assert "dynamic" in raised.value.how
