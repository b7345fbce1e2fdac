"""Min-SNR weights and the zero terminal SNR, against diffusers' functions and the way its training script uses them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.prediction import Prediction, weight
from trainjobs.objectives.diffusion.process import Schedule, cumulative_signal, signal_and_noise
from trainjobs.objectives.phase import Batch

SHAPE = (1, 8, 8)
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}
# loss_weight of denoising-diffusion-pytorch 2.3.4's GaussianDiffusion(timesteps=1000, beta_schedule="linear", min_snr_loss_weight=True,
# min_snr_gamma=5) at timesteps 0, 100, 250, 500 and 999, by hand.
MIN_SNR = {
    "epsilon": [0.00050005, 0.585708, 1.0, 1.0, 1.0],
    "sample": [5.0, 5.0, 1.08953, 0.0843595, 4.03599e-05],
    "v": [0.0005, 0.524292, 0.521423, 0.0777967, 4.03583e-05],
}


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        result: Tensor = torch.tanh(self.conv(x) + 0.001 * t.view(-1, 1, 1, 1))
        return result


def objective(denoiser: nn.Module | None = None, steps: int = 10, **fields: Any) -> DiffusionObjective:
    return DiffusionObjective(denoiser or Denoiser(), DiffusionProcess.model_validate(fields), Sampler(steps=steps), SHAPE)


def batch(count: int = 16, start: int = 0) -> Batch:
    images = torch.rand(100, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch({"image": images[start : start + count]}, Noise.of(0, 0, "train", torch.arange(start, start + count)), count)


@pytest.fixture(scope="module")
def diffusers() -> Any:
    return pytest.importorskip("diffusers")


@pytest.mark.parametrize("prediction", MIN_SNR)
def test_min_snr_weights_are_those_of_denoising_diffusion_pytorch(prediction: Prediction) -> None:
    a, s = signal_and_noise("linear", 1000, False, torch.device("cpu"))
    at = [0, 100, 250, 500, 999]
    assert weight(prediction, 5.0, a[at], s[at]).tolist() == pytest.approx(MIN_SNR[prediction], rel=1e-4)


@pytest.mark.slow  # diffusers.training_utils imports transformers: 3 s
@pytest.mark.parametrize("schedule", BETAS)
@pytest.mark.parametrize("prediction", MIN_SNR)
def test_min_snr_loss_is_that_of_diffusers_script(diffusers: Any, schedule: str, prediction: str) -> None:
    """examples/text_to_image/train_text_to_image.py: `compute_snr`, then weights of each sample's mean."""
    from diffusers.training_utils import compute_snr

    denoiser, b, gamma = Denoiser(), batch(), 5.0
    loss, _ = objective(denoiser, schedule=schedule, prediction=prediction, minSnrGamma=gamma).simple_loss(b)
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, **BETAS[schedule])
    x, eps, t = b.data["image"], b.noise.normal("epsilon", *SHAPE), b.noise.integers("t", 1000, 1)[:, 0]
    snr = compute_snr(theirs, t)
    weights = torch.stack([snr, gamma * torch.ones_like(t)], dim=1).min(dim=1)[0]
    weights = {"epsilon": weights / snr, "v": weights / (snr + 1), "sample": weights}[prediction]
    target = {"epsilon": eps, "v": theirs.get_velocity(x, eps, t), "sample": x}[prediction]
    each = (denoiser(theirs.add_noise(x, eps, t), t) - target).square().mean(dim=(1, 2, 3))
    assert loss.item() == pytest.approx((each * weights).mean().item(), rel=1e-4)
    plain, _ = objective(denoiser, schedule=schedule, prediction=prediction).simple_loss(b)
    assert loss.item() != pytest.approx(plain.item(), rel=1e-3)


def test_the_three_weights_are_one_weight_of_the_image() -> None:
    """The same network, said in three ways, has one loss: errors of eps and v are those of x_0 times a / s and 1 / s."""
    b, losses = batch(), []
    a, s = signal_and_noise("cosine", 1000, False, torch.device("cpu"))
    for prediction in MIN_SNR:

        def said(x_t: Tensor, t: Tensor, prediction: str = prediction) -> Tensor:
            at, st = a[t].view(-1, 1, 1, 1), s[t].view(-1, 1, 1, 1)
            x = 0.5 * x_t.tanh()
            eps = (x_t - at * x) / st
            return {"epsilon": eps, "v": at * eps - st * x, "sample": x}[prediction]

        network = nn.Module()
        network.forward = said  # type: ignore[assignment]
        losses.append(objective(network, prediction=prediction, minSnrGamma=5.0).simple_loss(b)[0].item())
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-4)


def test_a_weighted_loss_is_a_mean_over_samples() -> None:
    ours = objective(prediction="v", minSnrGamma=5.0)
    whole = ours.simple_loss(batch(6))[0].item()
    assert sum(ours.simple_loss(batch(2, start))[0].item() for start in (0, 2, 4)) / 3 == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("schedule", BETAS)
def test_zero_terminal_schedules_are_diffusers(diffusers: Any, schedule: str) -> None:
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    plain = diffusers.DDPMScheduler(num_train_timesteps=1000, **BETAS[schedule])
    theirs = (1.0 - rescale_zero_terminal_snr(plain.betas.double())).cumprod(0)
    ours = cumulative_signal(cast(Schedule, schedule), 1000, True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)
    assert ours[-1] == 0.0
    assert ours[0].item() == pytest.approx(cumulative_signal(cast(Schedule, schedule), 1000)[0].item(), rel=1e-12)
    assert (ours.diff() < 0).all()


@pytest.mark.parametrize("prediction", ["v", "sample"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_sampling_from_zero_terminal_snr_is_diffusers_ddim(diffusers: Any, prediction: str, eta: float) -> None:
    denoiser = Denoiser()
    process = DiffusionProcess.model_validate({"schedule": "scaled-linear", "prediction": prediction, "zeroTerminalSnr": True})
    ours = DiffusionObjective(denoiser, process, Sampler(steps=10, eta=eta), SHAPE)
    noise = Noise.of(0, 0, "samples", torch.arange(5))
    with torch.no_grad():
        made = ours.sample(Batch({}, noise, 5)).images
        theirs = diffusers.DDIMScheduler(
            prediction_type={"v": "v_prediction", "sample": "sample"}[prediction],
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
            **BETAS["scaled-linear"],
        )
        theirs.alphas_cumprod = theirs.alphas_cumprod.double()
        theirs.set_timesteps(10)
        x = noise.normal("start", *SHAPE).double()
        for t in theirs.timesteps:
            predicted = denoiser(x.float(), t.expand(5)).double()
            variance_noise = noise.normal(f"step-{int(t)}", *SHAPE).double() if eta else None
            x = theirs.step(predicted, t, x, eta=eta, use_clipped_model_output=True, variance_noise=variance_noise).prev_sample
    assert made is not None
    torch.testing.assert_close(made, x.float(), rtol=1e-3, atol=2e-4)


def test_the_last_step_of_a_zero_terminal_snr_trains_on_noise_alone() -> None:
    asked: list[Tensor] = []
    network = nn.Module()

    def remember(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(x_t)
        return torch.zeros_like(x_t)

    network.forward = remember  # type: ignore[assignment]
    b = batch(64)
    loss, _ = objective(network, prediction="v", timesteps=2, zeroTerminalSnr=True).simple_loss(b)
    last = b.noise.integers("t", 2, 1)[:, 0] == 1
    assert 20 < int(last.sum()) < 44
    torch.testing.assert_close(asked[0][last], b.noise.normal("epsilon", *SHAPE)[last])
    assert torch.isfinite(loss)
