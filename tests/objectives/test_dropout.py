"""Dropout by sample: the same for any cut of a batch, right in the mean, and the attention that torch documents."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainjobs.api.language import Transformer
from trainjobs.models.transformers import causal_language_model
from trainjobs.models.unet import ResidualBlock, UNet
from trainjobs.noise import Noise
from trainjobs.objectives.dropout import kept, masks

ROWS = 8


def noise(rows: range, step: int = 3, phase: str = "train.0") -> Noise:
    return Noise.of(0, step, phase, torch.tensor(list(rows)))


class Rows(nn.Module):
    """Drops elements of [B * T, C], in place, and whole channels of [B, C, H, W]; part of it is computed again in the backward pass."""

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        self.again, self.first, self.last = again, nn.Linear(6, 6), nn.Conv2d(4, 4, 1)
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), nn.Linear(6, 6))
        self.rows, self.channels = nn.Dropout(0.2, inplace=True), nn.Dropout2d(0.5)

    def forward(self, x_BTC: Tensor) -> Tensor:
        h = self.rows(self.first(x_BTC.flatten(0, 1)))
        h = checkpoint(self.inner, h, use_reentrant=False) if self.again else self.inner(h)
        found: Tensor = self.last(self.channels(h.view(-1, 4, 2, 3)))
        return found


def gpt() -> tuple[nn.Module, Tensor]:
    network = Transformer(layers=2, hidden=16, heads=2, context_length=12, dropout=0.2)
    return causal_language_model(network, 50, 49), torch.randint(0, 50, (ROWS, 12))


def unet() -> tuple[nn.Module, Tensor]:
    found = UNet(image_channels=1, channels=8, multipliers=[1, 2], blocks=1, attention=True)
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.3)  # those that begin as 0 would hide what is dropped
    for block in list(found.modules()):
        if isinstance(block, ResidualBlock):
            block.conv2 = nn.Sequential(nn.Dropout(0.1), block.conv2)  # type: ignore[assignment]
    return found, torch.randn(ROWS, 1, 8, 8)


def encoder() -> tuple[nn.Module, Tensor]:
    """torch's own layer, whose attention drops within a function of torch."""
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True), torch.randn(ROWS, 5, 8)


def rows() -> tuple[nn.Module, Tensor]:
    return Rows(), torch.randn(ROWS, 4, 6)


def gradient(network: nn.Module, data: Tensor, micro: int, by_sample: bool = True) -> Tensor:
    """Of the mean of squares over all rows, cut into micro-batches as the loop cuts them."""
    network.zero_grad()
    for start in range(0, ROWS, micro):
        part = data[start : start + micro]
        torch.manual_seed(start)
        with masks(noise(range(start, start + micro))) if by_sample else nullcontext():
            if isinstance(network, UNet):
                output = network(part, torch.full((micro,), 7))
            else:
                output = network(part) if part.is_floating_point() else network(input_ids=part).logits
            (output.double().square().mean() * micro / ROWS).backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("make", [gpt, unet, rows, encoder])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_gradients_are_the_same_for_any_cut(make: Any, micro: int) -> None:
    torch.manual_seed(0)
    network, data = make()
    network.train()
    whole = gradient(network, data, ROWS)
    assert (gradient(network, data, micro) - whole).norm() < 2e-6 * whole.norm()
    assert (gradient(network, data, micro, by_sample=False) - gradient(network, data, ROWS, by_sample=False)).norm() > 0.01 * whole.norm()


def test_what_is_computed_again_in_the_backward_pass_has_its_masks_again() -> None:
    torch.manual_seed(0)
    network, data = rows()
    again = Rows(again=True)
    again.load_state_dict(network.state_dict())
    assert torch.allclose(gradient(network, data, 4), gradient(again, data, 4), rtol=1e-5, atol=1e-8)


def test_elements_stay_with_the_probability_and_the_mean_stays() -> None:
    for p in (0.1, 0.5, 0.9):
        stay, scale = kept(noise(range(64)), 0, p, (50, 31))
        share = stay.double().mean().item()
        assert share == pytest.approx(1 - p, abs=5 * (p * (1 - p) / stay.numel()) ** 0.5)  # five standard deviations
        assert scale == pytest.approx(1 / (1 - p), rel=2e-4)


def test_masks_of_samples_layers_steps_and_neighbours_are_independent() -> None:
    first, _ = kept(noise(range(64)), 0, 0.5, (1024,))
    others = [kept(noise(range(64)), 1, 0.5, (1024,)), kept(noise(range(64), step=4), 0, 0.5, (1024,))]
    others += [kept(noise(range(64), phase="G.0"), 0, 0.5, (1024,)), kept(noise(range(64, 128)), 0, 0.5, (1024,))]
    for other, _ in [*others, (first.roll(1, 0), 0.0), (first.roll(1, 1), 0.0), (first.roll(2, 1), 0.0)]:
        assert (first == other).double().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("p", "expected"), [(1e-9, 1.0), (1.0 - 1e-9, 0.0)])
def test_what_is_nearly_never_or_nearly_always(p: float, expected: float) -> None:
    with masks(noise(range(4))):
        assert torch.equal(F.dropout(torch.ones(4, 9), p), torch.full((4, 9), expected))


@pytest.mark.parametrize("case", ["plain", "causal", "boolean", "bias", "scale", "grouped"])
def test_attention_is_torchs_where_nothing_is_dropped(case: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2 if case == "grouped" and i else 4, 5, 8) for i in range(3))
    more: dict[str, Any] = {
        "plain": {},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": torch.rand(5, 5) < 0.7},
        "bias": {"attn_mask": torch.randn(2, 4, 5, 5)},
        "scale": {"scale": 0.3},
        "grouped": {"enable_gqa": True},
    }[case]
    if case == "boolean":
        more["attn_mask"] |= torch.eye(5, dtype=torch.bool)
    with masks(noise(range(2))):
        ours = F.scaled_dot_product_attention(q, k, v, dropout_p=1e-9, **more)
        dropped = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, **more)
    assert torch.allclose(ours, F.scaled_dot_product_attention(q, k, v, **more), atol=1e-6)
    assert not torch.allclose(ours, dropped, atol=1e-2)


def test_attention_drops_weights_not_values() -> None:
    """Where every value is 1, a query gets the share of its weights that stay, times the scale."""
    q, k = torch.zeros(ROWS, 1, 3, 4), torch.zeros(ROWS, 1, 10, 4)
    with masks(noise(range(ROWS))):
        found = F.scaled_dot_product_attention(q, k, torch.ones(ROWS, 1, 10, 1), dropout_p=0.5)
    stay, scale = kept(noise(range(ROWS)), 0, 0.5, (1, 3, 10))
    assert torch.allclose(found, stay.float().mean(-1, keepdim=True) * scale)


def test_nothing_is_dropped_in_eval_mode() -> None:
    with masks(noise(range(4))):
        assert torch.equal(nn.Dropout(0.5).eval()(torch.ones(4, 9)), torch.ones(4, 9))
        assert torch.equal(F.dropout(torch.ones(4, 9), 0.5, training=False), torch.ones(4, 9))


def test_torch_is_as_it_was_afterwards_also_after_an_error() -> None:
    before = F.dropout, F.scaled_dot_product_attention
    with masks(noise(range(4))):
        assert F.dropout is not before[0]
    with pytest.raises(KeyError), masks(noise(range(4))):
        raise KeyError
    assert (F.dropout, F.scaled_dot_product_attention) == before


def test_what_has_another_first_dimension_is_left_to_torch() -> None:
    def drawn() -> Tensor:
        torch.manual_seed(0)
        return F.dropout(torch.ones(5, 9), 0.5)

    with masks(noise(range(4))):
        found = drawn()
    assert torch.equal(found, drawn())
