"""Which conditions are dropped in training, and how samples are led."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.guidance import NONE, Guidance
from trainjobs.objectives.phase import Batch


class Told(nn.Module):
    """Says which condition it was told."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels, self.calls = channels, 0

    def forward(self, x: Tensor, t: Tensor, given: Tensor | None = None) -> Tensor:
        self.calls += 1
        told = torch.zeros(len(x)) if given is None else given.float().flatten(1).sum(1) if given.dim() > 1 else given.float()
        return told[:, None, None, None].expand(-1, self.channels, 2, 2)


def batch(rows: Tensor, **data: Tensor) -> Batch:
    return Batch(data, Noise(5, rows), len(rows))


def test_conditions_are_dropped_by_sample_as_often_as_asked() -> None:
    guidance, rows = Guidance("label", none=10, dropout=0.3), torch.arange(4000)
    (told,) = guidance.trained(batch(rows, label=rows % 10))
    dropped = told == 10
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(told[~dropped], (rows % 10)[~dropped])
    (part,) = guidance.trained(batch(rows[1000:1500], label=rows[1000:1500] % 10))
    assert torch.equal(part, told[1000:1500])


def test_a_dropped_text_is_the_empty_one() -> None:
    rows = torch.arange(64)
    (told,) = Guidance("caption", dropout=0.5).trained(batch(rows, caption=torch.full((64, 3), 97)))
    assert sorted(set(map(tuple, told.tolist()))) == [(97, 97, 97), (256, 256, 256)]


def test_nothing_is_dropped_of_held_out_samples() -> None:
    label = torch.arange(8)
    assert Guidance("label", 10, 0.9).given(batch(label, label=label)) == (label,)
    assert NONE.given(batch(label)) == NONE.trained(batch(label)) == ()


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0, 7.5])
def test_samples_are_led_as_diffusers_pipelines_lead_them(weight: float) -> None:
    """StableDiffusionPipeline.__call__: noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)."""
    rows, network = torch.arange(3), Told()
    look = Guidance("label", none=10, dropout=0.1, weight=weight, channels=1).guided(network, batch(rows, label=torch.tensor([1, 4, 7])))
    found = look(torch.zeros(3, 1, 2, 2), torch.zeros(3))
    assert found[:, 0, 0, 0].tolist() == pytest.approx([10 + weight * (label - 10) for label in (1, 4, 7)])
    assert network.calls == 1


def test_the_variance_is_that_of_the_condition() -> None:
    look = Guidance("label", none=10, weight=3.0, channels=1).guided(Told(2), batch(torch.arange(1), label=torch.tensor([4])))
    assert look(torch.zeros(1, 1, 2, 2), torch.zeros(1))[0, :, 0, 0].tolist() == [10 + 3 * (4 - 10), 4]


@pytest.mark.parametrize(("role", "none"), [("label", 10.0), ("caption", 0.0)])
def test_without_a_condition_samples_are_drawn_for_none(role: str, none: float) -> None:
    look = Guidance(role, none=10 if role == "label" else 256).guided(Told(), batch(torch.arange(2)))
    assert look(torch.zeros(2, 1, 2, 2), torch.zeros(2))[:, 0, 0, 0].tolist() == [none, none]
