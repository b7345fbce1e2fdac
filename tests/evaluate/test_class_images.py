"""Pictures of the class: a start that was killed amid them goes on where it was, and ends with the same ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from trainjobs.evaluate import class_images
from trainjobs.objectives.diffusion.pipeline import LOGVAR, MEAN
from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

ALONE, COUNT = World(0, 1, torch.device("cpu")), 10


class Drawing:
    """Draws by the noise of each number, and is killed at the piece `until`."""

    def __init__(self, until: int = COUNT) -> None:
        wanted = SimpleNamespace(prior_loss_weight=1.0, class_images=COUNT, class_prompt="a toy")
        self.family = SimpleNamespace(adapted=SimpleNamespace(dreambooth=wanted))
        self.network, self.vae = nn.Identity(), nn.Identity()
        self.until, self.drawn = until, 0
        self.classes: Any = None

    def sample(self, batch: Batch) -> Samples:
        if self.drawn == self.until:
            raise KeyboardInterrupt
        self.drawn += 1
        return Samples(images=batch.noise.normal("picture", 3, 8, 8).clamp(-1, 1))

    def encode(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {MEAN: data["image"], LOGVAR: data["image"] * 0}


def draw(objective: Any, folder: Path) -> None:
    spec: Any = SimpleNamespace(training=SimpleNamespace(seed=3))
    class_images.draw(objective, spec, SimpleNamespace(), ALONE, folder, lambda words: None)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}


def test_a_start_that_was_killed_amid_them_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_images, "key", lambda spec, base: "key")
    whole, killed, again = Drawing(), Drawing(until=1), Drawing()
    draw(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw(killed, tmp_path / "killed")
    assert len(files(tmp_path / "killed")) == class_images.PIECE
    draw(again, tmp_path / "killed")
    assert (whole.drawn, again.drawn) == (3, 2), "what lay there is not drawn again"
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert len(set(files(tmp_path / "whole").values())) == COUNT
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.classes, whole.classes, strict=True))
