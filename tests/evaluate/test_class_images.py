"""Pictures of the class: a start that was killed amid them goes on where it was, and ends with the same ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
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


class Rank:
    """One of two, each in a thread."""

    size, device = 2, torch.device("cpu")

    def __init__(self, rank: int, barrier: Barrier, told: dict[int, Any]) -> None:
        self.rank, self.barrier, self.told = rank, barrier, told

    def gather(self, value: Any) -> list[Any]:
        self.told[self.rank] = value
        self.barrier.wait(60)
        found = [self.told[rank] for rank in range(2)]
        self.barrier.wait(60)
        return found


def test_two_ranks_go_on_with_what_one_began_and_one_with_what_two_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_images, "key", lambda spec, base: "key")
    whole, alone, ours, again = Drawing(), Drawing(until=1), (Drawing(), Drawing()), Drawing()
    draw(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw(alone, tmp_path / "moved")
    barrier, told, spec = Barrier(2), dict[int, Any](), SimpleNamespace(training=SimpleNamespace(seed=3))

    def share(rank: int) -> None:
        world: Any = Rank(rank, barrier, told)
        class_images.draw(ours[rank], spec, SimpleNamespace(), world, tmp_path / "moved", lambda words: None)  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(share, range(2)))
    assert [one.drawn for one in ours] == [1, 1], "of three pieces one lay there"
    (tmp_path / "moved" / "key" / "00009.png").unlink()  # as if they had been killed amid the last
    draw(again, tmp_path / "moved")
    assert again.drawn == 1
    assert files(tmp_path / "moved") == files(tmp_path / "whole")
    for one in (*ours, again):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.classes, whole.classes, strict=True))
