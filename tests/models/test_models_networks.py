"""Networks: shapes at every size, sizes and statistics against the papers, errors for what does not go together."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import NETWORKS, NOISE_SCHEDULE, Spec
from trainjobs.data.source import DataInfo
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.models import dcgan
from trainjobs.models import vae as vae_networks
from trainjobs.models.unet import UNet, timestep_features
from trainjobs.objectives.build import build

POINTS = DataInfo("point", (2,), 100, 5)
TEXT = DataInfo("text", (16,), 100, 5, vocabulary=257, tokenizer=ByteTokenizer())


def images(size: int, channels: int = 1) -> DataInfo:
    return DataInfo("image", (channels, size, size), 100, 5)


def spec(**family: Any) -> Spec:
    return Spec.model_validate({**family, "data": {"source": "builtin:digits"}, "training": {"steps": 1}})


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_shapes(size: int, channels: int) -> None:
    gan = {"generator": {"channels": 2, "latentDim": 5}, "discriminator": {"channels": 2, "normalization": "batch"}}
    networks = build(spec(gan=gan), images(size, channels)).modules
    assert tuple(networks) == NETWORKS["gan"]
    made = networks["generator"](torch.randn(3, 5))
    assert made.shape == (3, channels, size, size)
    assert made.abs().max() <= 1.0
    assert networks["discriminator"](made).shape == (3,)


def test_dcgan_is_as_large_as_the_authors_networks() -> None:
    """64 x 64, 3 channels, latent 100, 64 maps: the sizes of PyTorch's DCGAN example (Radford's Torch code), plus two output biases."""
    generator = dcgan.Generator(latent_dim=100, channels=64, size=64, image_channels=3, batch_norm=True)
    discriminator = dcgan.Discriminator(channels=64, size=64, image_channels=3, batch_norm=True, spectral=False)
    assert parameters(generator) == 3_576_704 + 3
    assert parameters(discriminator) == 2_765_568 + 64 + 1


def test_dcgan_weights_start_as_in_the_paper() -> None:
    torch.manual_seed(0)
    generator = dcgan.Generator(latent_dim=64, channels=32, size=32, image_channels=3, batch_norm=True)
    weights = torch.cat([m.weight.flatten() for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)])
    assert weights.mean().item() == pytest.approx(0.0, abs=2e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


def test_spectral_norm_makes_every_layer_of_norm_one() -> None:
    gan = {"generator": {"channels": 4}, "discriminator": {"channels": 4, "spectralNorm": True}}
    discriminator = build(spec(gan=gan), images(16)).modules["discriminator"]
    for _ in range(100):  # power iterations, one per forward pass
        discriminator(torch.randn(2, 1, 16, 16))
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert norms == pytest.approx([1.0] * 3, abs=1e-3)


def test_mlp_networks_map_points() -> None:
    gan = {"generator": {"architecture": "mlp", "latentDim": 3, "channels": 8, "layers": 2, "normalization": "batch"}}
    gan["discriminator"] = {"architecture": "mlp", "channels": 8, "layers": 2, "spectralNorm": True}
    networks = build(spec(gan=gan), POINTS).modules
    made = networks["generator"](torch.randn(7, 3))
    assert made.shape == (7, 2)
    assert networks["discriminator"](made).shape == (7,)
    # Two hidden layers of 8, batch norm's scale and shift in each, output of 2.
    assert parameters(networks["generator"]) == (3 * 8 + 8 + 16) + (8 * 8 + 8 + 16) + (8 * 2 + 2)
    assert sum(isinstance(m, nn.ReLU) for m in networks["generator"].modules()) == 2


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_vae_shapes(size: int, channels: int) -> None:
    networks = build(spec(vae={"network": {"channels": 2, "latentDim": 6}}), images(size, channels)).modules
    assert tuple(networks) == NETWORKS["vae"]
    output, mean, logvar = networks["autoencoder"](torch.randn(3, 6), torch.randn(3, channels, size, size))
    assert (output.shape, mean.shape, logvar.shape) == ((3, channels, size, size), (3, 6), (3, 6))
    assert networks["autoencoder"](torch.randn(3, 6))[0].shape == (3, channels, size, size)


def test_autoencoder_draws_its_latent_by_the_reparametrisation() -> None:
    """With the identity as decoder and fixed moments the output is mean + sigma * noise."""

    class Moments(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, -2.0, math.log(4.0), math.log(9.0)]]).expand(len(x), 4)

    network = vae_networks.Autoencoder(Moments(), nn.Identity())
    noise = torch.tensor([[1.0, 1.0], [0.0, -1.0]])
    output = network(noise, torch.zeros(2, 2))[0]
    torch.testing.assert_close(output, torch.tensor([[3.0, 1.0], [1.0, -5.0]]))
    torch.testing.assert_close(network(noise)[0], noise)


def test_vae_of_points() -> None:
    network = build(spec(vae={"network": {"architecture": "mlp", "latentDim": 3, "channels": 8}}), POINTS).modules["autoencoder"]
    assert network(torch.randn(4, 3), torch.randn(4, 2))[0].shape == (4, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "multipliers"), [(8, [1, 2]), (16, [1]), (32, [1, 2, 2]), (64, [1, 1, 2, 2]), (128, [1, 1, 1, 1, 2])])
@pytest.mark.parametrize("channels", [1, 3])
def test_unet_shapes(size: int, multipliers: list[int], channels: int) -> None:
    network = {"channels": 4, "multipliers": multipliers, "blocks": 2}
    networks = build(spec(diffusion={"network": network}), images(size, channels)).modules
    assert tuple(networks) == NETWORKS["diffusion"]
    x = torch.randn(2, channels, size, size)
    assert networks["denoiser"](x, torch.tensor([0, 999])).shape == x.shape


def test_a_learned_variance_has_channels_of_its_own_and_a_learned_schedule_a_network() -> None:
    process = {"prediction": "v", "learnedVariance": True}
    denoiser = build(spec(diffusion={"network": {"channels": 4}, "process": process}), images(8, 3)).modules["denoiser"]
    assert denoiser(torch.randn(2, 3, 8, 8), torch.tensor([0, 999])).shape == (2, 6, 8, 8)
    networks = build(spec(diffusion={"network": {"channels": 4}, "process": {"schedule": "learned"}}), images(8)).modules
    assert tuple(networks) == (*NETWORKS["diffusion"], NOISE_SCHEDULE)
    assert networks["denoiser"](torch.randn(2, 1, 8, 8), torch.tensor([0.5, 999.5])).shape == (2, 1, 8, 8)


def test_unet_starts_by_predicting_zero_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    unet = UNet(image_channels=1, channels=16, multipliers=[1, 2], blocks=1, attention=True)
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([0, 10, 500, 999])
    assert unet(x, t).abs().max() == 0.0
    optimizer = torch.optim.Adam(unet.parameters(), 1e-2)
    for _ in range(3):  # the zero layers open one after another
        optimizer.zero_grad()
        (unet(x, t) - x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in unet.parameters())


def test_unet_depends_on_the_timestep() -> None:
    torch.manual_seed(0)
    unet = UNet(image_channels=1, channels=16, multipliers=[1, 2], blocks=1, attention=True)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, 0.0, 0.1)
    x = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    first, second = unet(x, torch.tensor([3, 4]))
    assert not torch.allclose(first, second, atol=1e-4)


def test_timestep_features_are_those_of_diffusers() -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    t = torch.tensor([0, 1, 17, 999])
    expected = embeddings.get_timestep_embedding(t, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(timestep_features(t, 32), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "info", "where"),
    [
        ({"gan": {}}, POINTS, "gan.generator.architecture"),
        ({"gan": {"generator": {"architecture": "mlp"}}}, images(8), "gan.generator.architecture"),
        ({"gan": {"discriminator": {"architecture": "mlp"}}}, images(8), "gan.discriminator.architecture"),
        ({"vae": {}}, TEXT, "vae.network.architecture"),
        ({"vae": {"network": {"architecture": "mlp"}}}, images(8), "vae.network.architecture"),
        ({"diffusion": {}}, POINTS, "diffusion.network.architecture"),
        ({"diffusion": {"network": {"multipliers": [1, 2, 2, 2]}}}, images(8), "diffusion.network.multipliers"),
        ({"language": {}}, images(8), "language"),
        ({"language": {"network": {"hidden": 10, "heads": 4}}}, TEXT, "language.network.heads"),
        ({"language": {"network": {"architecture": "llama", "hidden": 12, "heads": 4}}}, TEXT, "language.network.heads"),
    ],
)
def test_what_does_not_go_together_is_said(family: dict[str, Any], info: DataInfo, where: str) -> None:
    with pytest.raises(JobError) as raised:
        build(spec(**family), info)
    assert (raised.value.code, raised.value.where) == ("GTJ0108", where)
    assert raised.value.how


def test_the_same_seed_gives_the_same_weights() -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(torch.cat([p.flatten() for p in build(spec(gan={}), images(8)).modules["generator"].parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
