"""StyleGAN2's networks: against another implementation, against each sample's own convolution, and what training asks of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.models import stylegan2
from trainjobs.noise import Noise

LATENT = 5


def generator(**more: int) -> stylegan2.Generator:
    torch.manual_seed(0)
    made = stylegan2.Generator(latent_dim=LATENT, channels=4, size=8, image_channels=1, mapping_layers=2, **more)
    with torch.no_grad():
        for styled in (made.first, *made.raised, *made.refined):
            styled.strength.fill_(0.5)
    return made


def noise(count: int = 4, start: int = 0) -> Noise:
    return Noise.of(3, 1, "G.0", torch.arange(start, start + count))


# --- another implementation ---------------------------------------------------------------------------------------------------------

# BasicSR's stylegan2_arch.py (commit 8d56e3a045f9, its plain path of upfirdn2d, in float64), with weights, latents, noise and images of the
# formulas below: of 16 x 16 pixels, 6 features everywhere, 3 mapping layers, every 97th number of two images; and with styles of another
# latent from layer 3 on; and the discriminator's scores, group of 2. Ours differed by 4.9e-15 at most.
IMAGE = [
    0.780225,
    -0.170785,
    -1.295664,
    1.279484,
    -3.962031,
    -3.668438,
    0.898513,
    -2.373584,
    0.905248,
    4.94809,
    -1.156969,
    -0.181013,
    0.611259,
    -4.836891,
    -0.753483,
    -0.479754,
]
MIXED = [
    0.672371,
    -0.333066,
    -1.502085,
    1.426816,
    -3.551976,
    -3.408903,
    0.863139,
    -2.29858,
    0.703151,
    4.595144,
    -1.483175,
    0.112375,
    0.864902,
    -4.638003,
    -0.758711,
    -0.508544,
]
SCORES = [1.2871584630551443, 1.2872914940166422]


def filled(network: nn.Module) -> None:
    with torch.no_grad():
        for number, (name, parameter) in enumerate(network.named_parameters(), 1):
            wave = torch.sin(torch.arange(1, parameter.numel() + 1).double() * (0.7 + 0.13 * number))
            parameter.copy_(wave.view_as(parameter) * (100.0 if name.startswith("mapping") else 1.0))


class Waves(Noise):
    def normal(self, name: str, *shape: int) -> Tensor:
        number = int(name.rpartition(".")[2])
        return torch.cos(torch.arange(2 * math.prod(shape)).double() * (0.3 + number)).view(2, *shape)


def test_networks_are_those_of_another_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stylegan2, "widths", lambda size, channels: [channels] * (size.bit_length() - 2))
    g = stylegan2.Generator(latent_dim=LATENT, channels=6, size=16, image_channels=3, mapping_layers=3).double()
    d = stylegan2.Discriminator(channels=6, size=16, image_channels=3, group=2).double()
    filled(g)
    filled(d)
    ten, waves = torch.arange(1, 11).double(), Waves(0, torch.arange(2))
    z, other = torch.sin(ten).view(2, LATENT), torch.cos(ten).view(2, LATENT)
    with torch.no_grad():
        assert g(z, waves).flatten()[::97].tolist() == pytest.approx(IMAGE, abs=1e-6)
        mixed = torch.cat([g.styles(z, waves)[:, :3], g.styles(other, waves)[:, 3:]], dim=1)
        assert g.draw(mixed, waves).flatten()[::97].tolist() == pytest.approx(MIXED, abs=1e-6)
        x = torch.sin(torch.arange(2 * 3 * 16 * 16).double() * 0.11).view(2, 3, 16, 16)
        assert d(x).tolist() == pytest.approx(SCORES, abs=1e-9)


# --- layers -------------------------------------------------------------------------------------------------------------------------


def test_a_modulated_convolution_is_each_sample_s_own() -> None:
    """Equations 1 to 3, one sample after another, with weights that are really made."""
    torch.manual_seed(0)
    layer = stylegan2.Modulated(3, 5, 3, LATENT).double()
    x, w = torch.randn(2, 3, 6, 6).double(), torch.randn(2, LATENT).double()
    made = layer(x, w)
    for sample in range(2):
        scaled = layer.weight / math.sqrt(27) * (layer.style.weight / math.sqrt(LATENT) @ w[sample] + layer.style.bias).view(1, 3, 1, 1)
        scaled = scaled / (scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(made[sample], F.conv2d(x[sample : sample + 1], scaled, padding=1)[0])


def test_widths_double_downwards_and_no_more_than_eight_times() -> None:
    assert stylegan2.widths(256, 64) == [512, 512, 512, 512, 256, 128, 64]
    assert stylegan2.widths(8, 4) == [8, 4]


def test_mapping_weights_move_as_if_a_hundredth_of_the_rate() -> None:
    """They begin as N(0, 100^2), and count a hundredth."""
    torch.manual_seed(0)
    layer = stylegan2.Mapping(64, 1)[0]
    assert layer.weight.std().item() == pytest.approx(100.0, rel=0.05)
    assert layer(torch.randn(512, 64)).std().item() == pytest.approx(1.0, rel=0.05)


# --- samples ------------------------------------------------------------------------------------------------------------------------


def test_an_image_is_its_sample_s_alone() -> None:
    """Drawn together with others or not, mixed or not."""
    g = generator()
    whole = g(noise().normal("z", LATENT), noise(), mixing=0.5)
    for sample in range(4):
        alone = noise(1, sample)
        torch.testing.assert_close(g(alone.normal("z", LATENT), alone, mixing=0.5)[0], whole[sample])
    assert not torch.equal(whole[0], whole[1])


def test_so_many_samples_mix_two_styles_from_a_random_layer_on() -> None:
    g = generator()
    many = noise(4000)
    w = g.styles(many.normal("z", LATENT), many, 0.9)
    own = g.mapping(many.normal("z", LATENT))
    same = (w == own[:, None]).all(dim=2)  # by sample and layer
    assert same[:, 0].all()  # the first layer always has the sample's own
    assert (~same[:, -1]).double().mean().item() == pytest.approx(0.9, abs=0.02)
    lengths = same.sum(dim=1)[~same[:, -1]]
    assert torch.bincount(lengths, minlength=g.layers)[1:].double().div(len(lengths)).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    others = g.mapping(many.normal("z.mixed", LATENT))
    torch.testing.assert_close(w[:, -1], torch.where(same[:, -1:], own, others))


def test_truncation_goes_towards_the_mean_style_of_the_weights_of_now() -> None:
    g = generator()
    z = noise().normal("z", LATENT)
    fixed = Noise(stylegan2.mix("mean of styles"), torch.arange(10_000)).normal("z", LATENT)
    mean = g.mapping(fixed).mean(dim=0)
    torch.testing.assert_close(g.mean_style(), mean)
    torch.testing.assert_close(g(z, noise(), truncation=0.3), g.draw(mean + 0.3 * (g.styles(z, noise()) - mean), noise()))
    with torch.no_grad():
        g.mapping[0].weight.mul_(2.0)
    torch.testing.assert_close(g.mean_style(), g.mapping(fixed).mean(dim=0))
    assert not torch.allclose(g.mean_style(), mean)
    assert not any(name.startswith("_mean") or "mean" in name for name in g.state_dict())


def test_noise_shows_as_far_as_its_strength() -> None:
    g = generator()
    z = noise().normal("z", LATENT)
    assert not torch.equal(g(z, noise()), g(z, noise(start=9)))
    with torch.no_grad():
        for styled in (g.first, *g.raised, *g.refined):
            styled.strength.zero_()
    assert torch.equal(g(z, noise()), g(z, noise(start=9)))
