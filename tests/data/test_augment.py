"""Random changes of pictures are torchvision's, and belong to the sample."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainjobs.api.data import Data, Images
from trainjobs.data.augment import augmented, jittered, mirrored, moved_by, rotated
from trainjobs.data.pixels import ImageSource
from trainjobs.noise import Noise

TABLE = json.loads((Path(__file__).parent / "augment_torchvision.json").read_text())
EVERY = ["horizontalFlip", "rotation", "randomCrop", "colorJitter"]


def picture() -> Tensor:
    return (torch.arange(192, dtype=torch.float32).view(1, 3, 8, 8) * 0.7).sin()


def one(value: float) -> Tensor:
    return torch.tensor([value])


MADE = {
    "rotation 30": lambda x: rotated(x, one(30.0)),
    "rotation -75": lambda x: rotated(x, one(-75.0)),
    "crop 1 -2": lambda x: moved_by(x, torch.tensor([[1, -2]])),
    "brightness 1.3": lambda x: jittered(x, one(1.3), one(1.0), one(1.0), one(0.0)),
    "contrast 0.6": lambda x: jittered(x, one(1.0), one(0.6), one(1.0), one(0.0)),
    "saturation 1.7": lambda x: jittered(x, one(1.0), one(1.0), one(1.7), one(0.0)),
    "hue 0.3": lambda x: jittered(x, one(1.0), one(1.0), one(1.0), one(0.3)),
    "hue -0.1": lambda x: jittered(x, one(1.0), one(1.0), one(1.0), one(-0.1)),
    "all": lambda x: jittered(x, one(1.3), one(0.6), one(1.7), one(0.3)),
}


@pytest.mark.parametrize("name", MADE)
def test_each_change_is_torchvisions(name: str) -> None:
    found = (MADE[name](picture()) + 1.0) / 2.0
    expected = torch.tensor(TABLE["numbers"][name])
    torch.testing.assert_close(found.flatten()[:: TABLE["every"]], expected, rtol=0.0, atol=2e-6)


def test_a_mirror_shows_the_outermost_place_twice() -> None:
    assert mirrored(torch.arange(-3, 7), 4).tolist() == [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_changed_alike_however_the_batch_is_cut(channels: int) -> None:
    images = Images.model_validate({"size": 8, "channels": channels, "augment": EVERY, "strength": {"hue": 0.2}})
    x = picture()[:, :channels].expand(6, -1, -1, -1)
    whole = augmented(x, images, Noise(3, torch.arange(6)))
    parts = [augmented(x[:2], images, Noise(3, torch.arange(2))), augmented(x[:4], images, Noise(3, torch.arange(2, 6)))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0.0, atol=1e-6)
    assert all(not torch.equal(whole[0], other) for other in whole[1:])
    assert whole.abs().max() <= 1.0


@pytest.mark.parametrize("change", EVERY)
def test_a_source_makes_the_changes_that_the_manifest_names(change: str) -> None:
    data = Data.model_validate({"source": "builtin:shapes", "holdout": 0.5, "images": {"size": 8, "augment": [change]}})
    source = ImageSource.of(picture().expand(8, -1, -1, -1), data)
    made = source.batch(torch.arange(4), 0, Noise(1, torch.arange(4)))["image"]
    assert not torch.equal(made, picture().expand(4, -1, -1, -1))
    assert torch.equal(source.heldout_batch(torch.arange(4))["image"], picture().expand(4, -1, -1, -1))  # never held-out ones
