"""Which pictures a network takes: multiples of 8 up to 1024, and of some networks those that can be halved down to 4 pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainjobs.api.learners import POWERS
from trainjobs.api.parse import parse
from trainjobs.models.unet import UNet

HALVING: dict[str, dict[str, Any]] = {
    "dcgan": {"gan": {}},
    "stylegan2": {"gan": {"generator": {"architecture": "stylegan2"}, "discriminator": {"architecture": "stylegan2"}}},
    "conv": {"vae": {}},
}
OTHERS: dict[str, dict[str, Any]] = {
    "unet": {"diffusion": {"network": {"multipliers": [1, 2, 4]}}},
    "dit": {"diffusion": {"network": {"architecture": "dit", "patch": 8}}},
    "autoencoder-kl": {"vae": {"network": {"architecture": "autoencoder-kl", "multipliers": [1, 2]}}},
}
SIZES = (8, 16, 24, 40, 256, 768, 1024)


def codes(family: dict[str, Any], size: int) -> list[str]:
    spec = {**family, "data": {"source": "builtin:shapes", "images": {"size": size}}, "training": {"steps": 1}}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    return [problem.code for problem in parse(manifest)[1]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*HALVING, *OTHERS])
def test_a_network_takes_a_size_or_refuses_it(name: str, size: int) -> None:
    fits = size in POWERS if name in HALVING else not (name == "dit" and size == 8)
    assert codes((HALVING | OTHERS)[name], size) == ([] if fits else ["GTJ0108"])


@pytest.mark.parametrize("size", [0, 4, 12, 1000.5, 1032])
def test_no_other_size_is_one(size: float) -> None:
    assert set(codes(OTHERS["unet"], size)) & {"GTJ0102", "GTJ0105"}  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_unet_halves_what_divides() -> None:
    assert codes({"diffusion": {"network": {"multipliers": [1, 2, 4, 4]}}}, 24) == []
    assert codes({"diffusion": {"network": {"multipliers": [1, 2, 4, 4, 4]}}}, 24) == ["GTJ0108"]
    network = UNet(image_channels=1, channels=8, multipliers=[1, 2, 2, 2], blocks=1, attention=True)
    assert network(torch.zeros(2, 1, 24, 24), torch.zeros(2, dtype=torch.int64)).shape == (2, 1, 24, 24)
