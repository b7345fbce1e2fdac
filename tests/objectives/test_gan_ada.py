"""Adaptive augmentation: how its strength moves, by hand; and its operations against numpy, scipy and known pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from trainjobs.api.gan import Augment
from trainjobs.noise import Noise
from trainjobs.objectives.gan import ada

SIZE = 16


def noise(count: int = 8, start: int = 0) -> Noise:
    return Noise.of(2, 7, "D.0", torch.arange(start, start + count))


def pictures(count: int = 8, channels: int = 3) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(count, channels, SIZE, SIZE) * 2.0 - 1.0


# --- the strength -------------------------------------------------------------------------------------------------------------------


def test_p_follows_the_sign_of_what_was_heard_since_it_last_changed() -> None:
    """Eight images a step, every four steps: 32 of 320 images, a tenth."""
    state = ada.Ada(Augment(type="ada", images=320), images=8)
    for sign in (1.0, 1.0, 0.0, 0.2):  # 0.55 on the whole
        state.adapt({"sign/real": sign}, 1)
    assert state.p == 0.0  # it does not go below
    for _ in range(3):
        state.adapt({"sign/real": 0.9}, 2)
        assert state.p == pytest.approx(0.1 * (_ // 2 + _ % 2))
    kept = state.state()
    again = ada.Ada(Augment(type="ada", images=320), images=8)
    again.load_state(kept)
    for one in (state, again):
        one.adapt({"sign/real": 0.0}, 2)
        assert one.p == pytest.approx(0.0)  # 0.45 on the whole: back
    for _ in range(20):
        state.adapt({"sign/real": 0.9}, 4)
    assert state.p == 1.0  # nor above
    state.adapt({"sign/real": 0.6}, 4)
    assert state.p == 1.0  # at the target it stays


# --- the operations -----------------------------------------------------------------------------------------------------------------


def test_nothing_changes_at_p_0() -> None:
    x = pictures()
    assert torch.equal(ada.augmented(x, ["blit", "geom", "color"], 0.0, noise(), "a"), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_s_augmentation_is_its_own_however_the_batch_is_cut(channels: int) -> None:
    x = pictures(channels=channels)
    whole = ada.augmented(x, ["blit", "geom", "color"], 0.7, noise(), "a")
    apart = [ada.augmented(x[row : row + 2], ["blit", "geom", "color"], 0.7, noise(2, row), "a") for row in range(0, 8, 2)]
    torch.testing.assert_close(whole, torch.cat(apart))
    assert not torch.equal(whole, ada.augmented(x, ["blit", "geom", "color"], 0.7, noise(), "b"))


def test_blit_is_numpy_s_flip_rot90_and_pad() -> None:
    count = 64
    x, own = pictures(count, 1), noise(count)
    made = ada.blit(x, 0.8, own, "b")
    chosen = {what: own.uniform(f"b.{what}") < 0.8 for what in ("shift", "turn", "mirror")}
    by = [own.integers(f"b.by.{axis}", 5) - 2 for axis in range(2)]
    changed = 0
    for row in range(count):
        picture = x[row, 0].numpy()
        mirrored = bool(chosen["mirror"][row]) and int(own.integers("b.mirrored", 2)[row]) == 1
        turns = int(own.integers("b.turns", 4)[row]) if chosen["turn"][row] else 0
        down, across = (int(axis[row]) if chosen["shift"][row] else 0 for axis in by)
        wanted = made[row, 0].numpy()
        # Backwards: what was looked up last was done first.
        framed = np.pad(picture, 2, mode="symmetric")
        variants = [np.rot90(framed, turn) for turn in range(4)]
        found = [
            (turn, mirror, d, a)
            for turn, variant in enumerate(variants)
            for mirror in (False, True)
            for d in range(-2, 3)
            for a in range(-2, 3)
            if np.array_equal((np.fliplr(variant) if mirror else variant)[2 + d : 2 + d + SIZE, 2 + a : 2 + a + SIZE], wanted)
        ]
        assert found, row
        assert {(turn % 2, mirror) for turn, mirror, _, _ in found} & {(turns % 2, mirrored)}
        assert {abs(found[0][2]), abs(found[0][3])} == {abs(down), abs(across)}
        changed += not np.array_equal(picture, wanted)
    assert 40 < changed < 64


def test_each_operation_is_applied_to_a_share_p() -> None:
    count = 4000
    own = noise(count)
    identity = torch.eye(2, 3)
    still = (ada.geometry(0.3, own, "g") == identity).flatten(1).all(1).double().mean().item()
    assert still == pytest.approx(0.7**4, abs=0.02)  # scale, two turns as one, stretch, shift
    plain = (ada.colours(3, 0.3, own, "c") - torch.eye(4)).abs().flatten(1).amax(1) < 1e-6
    assert plain.double().mean().item() == pytest.approx(0.7**4 * (0.7 + 0.3 / 2), abs=0.02)  # every second mirror of the luma is none


def test_geometry_turns_scales_and_shifts_what_is_looked_up() -> None:
    """A smooth picture, of which the warped one is known in closed form."""
    own = noise(16)
    maps = ada.geometry(0.9, own, "g").double()
    axis = (torch.arange(32).double() + 0.5) / 16 - 1

    def bump(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(x**2 + 2 * (y - 0.1) ** 2) / 0.08)

    y, x = torch.meshgrid(axis, axis, indexing="ij")
    made = ada.warped(bump(x, y).expand(16, 1, -1, -1), maps)
    for row in range(16):
        (a, b, c), (d, e, f) = maps[row].tolist()
        there = a * x + b * y + c, d * x + e * y + f
        inside = (there[0].abs() < 0.9) & (there[1].abs() < 0.9)
        difference = (made[row, 0] - bump(*there))[inside]
        assert difference.abs().max() < 0.05, row


def test_the_low_pass_is_that_of_an_orthogonal_wavelet_with_six_vanishing_moments() -> None:
    """Which there are few of; and half the resolution undoes twice the resolution within a picture."""
    taps = np.array(ada.SYM6)
    for shift in range(6):
        assert (taps[2 * shift :] * taps[: 12 - 2 * shift]).sum() == pytest.approx(float(shift == 0), abs=1e-9)
    places = np.arange(12)
    for moment in range(6):
        assert ((-1.0) ** places * places**moment * taps).sum() == pytest.approx(0.0, abs=12**moment * 1e-9)
    x = pictures().double()
    again = ada._halved(ada._doubled(x))
    torch.testing.assert_close(again[:, :, 3:-3, 3:-3], x[:, :, 3:-3, 3:-3], rtol=0, atol=1e-9)


def test_colours_turn_about_grey_as_scipy_has_it() -> None:
    angle = torch.tensor([0.3, -2.0])
    wanted = Rotation.from_rotvec(angle.numpy()[:, None] * np.full(3, 1 / math.sqrt(3))).as_matrix()
    np.testing.assert_allclose(ada._about_grey(angle)[:, :3, :3].numpy(), wanted, atol=1e-6)


def test_grey_stays_grey_and_colours_keep_their_kind() -> None:
    """Hue and saturation leave grey alone; brightness and contrast move all channels alike."""
    own = noise(64)
    maps = ada.colours(3, 1.0, own, "c")
    grey = torch.full((64, 3, 2, 2), 0.25)
    made = ada.coloured(grey, maps)
    torch.testing.assert_close(made, made.mean(dim=1, keepdim=True).expand_as(made), rtol=1e-4, atol=1e-5)
    values = made[:, 0, 0, 0]
    assert len({round(float(value), 4) for value in values}) > 60
    one = ada.coloured(torch.full((64, 1, 2, 2), 0.25), ada.colours(1, 1.0, own, "c"))
    expected = (0.25 + 0.2 * own.normal("c.brightness.by", 1)[:, 0]) * 2 ** (0.5 * own.normal("c.contrast.by", 1)[:, 0])
    torch.testing.assert_close(one[:, 0, 0, 0], expected)


def test_gradients_flow_through_all_of_it_twice() -> None:
    x = pictures(4).double().requires_grad_()
    made = ada.augmented(x, ["blit", "geom", "color"], 0.9, noise(4), "a")
    (slope,) = torch.autograd.grad(made.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x)
    assert second.abs().sum() > 0
