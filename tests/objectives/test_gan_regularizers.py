"""Regularisers of GANs against finite differences, analytic values and pair-by-pair sums; and what a lazy one asks of the loop."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.gan import Gan, corrected
from trainjobs.api.job import Job
from trainjobs.api.training import Optimizer
from trainjobs.models import dcgan, mlp
from trainjobs.noise import Noise
from trainjobs.objectives.gan.build import clip
from trainjobs.objectives.gan.gradient_penalty import r1
from trainjobs.objectives.gan.objective import GanObjective
from trainjobs.objectives.gan.orthogonal import orthogonal
from trainjobs.objectives.phase import Batch

B = 6


def gan(**parts: Any) -> GanObjective:
    torch.manual_seed(0)
    generator = mlp.Generator(latent_dim=3, channels=16, depth=2, dimension=2, batch_norm=False)
    discriminator = mlp.Discriminator(channels=16, depth=2, dimension=2, batch_norm=False, spectral=False)
    return GanObjective(generator, discriminator, Gan.model_validate({"generator": {"latentDim": 3}, **parts}), "point")


def batch() -> Batch:
    torch.manual_seed(1)
    return Batch({"point": torch.randn(B, 2)}, Noise.of(7, 3, "D", torch.arange(B)), B)


# --- R1 -----------------------------------------------------------------------------------------------------------------------------


def test_r1_of_a_linear_discriminator_is_known() -> None:
    """D(x) = w . x has the slope w everywhere: |w|^2, whose gradient is 2 w."""
    judge = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    with torch.no_grad():
        judge[0].weight.copy_(torch.tensor([[1.0, 2.0, -2.0]]))
    value = r1(judge, torch.randn(B, 3))
    value.backward()
    assert value.item() == pytest.approx(9.0)
    torch.testing.assert_close(judge[0].weight.grad, torch.tensor([[2.0, 4.0, -4.0]]))
    torch.testing.assert_close(judge[0].bias.grad, torch.zeros(1))  # none at all would be passed over by torch's Adam, and not by ZeRO


@pytest.mark.parametrize("kind", ["points", "pictures"])
def test_r1_is_that_of_finite_differences_in_float64(kind: str) -> None:
    """The slope by moving each element of each sample, and the gradient of its square by moving each weight of two layers."""
    torch.manual_seed(0)
    judge: nn.Module
    if kind == "points":
        judge, x = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double(), torch.randn(2, 2).double()
        weights = [judge[0].weight, judge[2].weight]
    else:
        judge = dcgan.Discriminator(channels=2, size=8, image_channels=1, batch_norm=False, spectral=False, attention=[4], group=2).double()
        for parameter in judge.parameters():
            nn.init.normal_(parameter, 0.0, 0.3)
        x = torch.randn(2, 1, 8, 8).double()
        weights = [judge.layers[2].gamma, judge.layers[0].weight, judge.layers[4].weight]
    value = r1(judge, x)
    value.backward()

    step = 1e-5 * torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape)  # one copy of the samples for each of their elements

    def by_hand() -> float:
        up, down = (judge((x + sign * step).flatten(0, 1)).view(len(step), -1).sum(1) for sign in (1.0, -1.0))
        return float((((up - down) / 2e-5) ** 2).sum()) / len(x)

    with torch.no_grad():
        assert value.item() == pytest.approx(by_hand(), rel=1e-7)
        for weight in weights:
            assert weight.grad is not None
            for place in range(0, weight.numel(), max(1, weight.numel() // 3)):
                flat, ends = weight.view(-1), []
                before = flat[place].item()
                for sign in (1.0, -1.0):
                    flat[place] = before + sign * 1e-4
                    ends.append(by_hand())
                flat[place] = before
                assert weight.grad.view(-1)[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4, abs=1e-6)


def test_r1_is_float32_where_weights_and_samples_are_bf16() -> None:
    torch.manual_seed(0)
    judge = dcgan.Discriminator(channels=8, size=8, image_channels=1, batch_norm=False, spectral=False, attention=[4]).to(torch.bfloat16)
    x = torch.randn(4, 1, 8, 8).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = r1(judge, x)
    assert value.dtype == torch.float32
    assert value.item() == r1(judge.float(), x.float()).item()


def test_r1_of_every_step_is_a_part_of_the_loss_and_a_lazy_one_a_phase_that_takes_the_steps_samples() -> None:
    beside, plain, b = gan(regularization={"r1": {"gamma": 3.0, "every": 1}}), gan(), batch()
    assert [phase.name for phase in beside.phases] == ["D", "G"]
    loss, metrics = beside.discriminator_loss(b)
    assert (loss - plain.discriminator_loss(b)[0]).item() == pytest.approx(1.5 * float(metrics["r1"]), rel=1e-4)

    lazy = gan(regularization={"r1": {"gamma": 3.0, "every": 16}}, loss={"criticSteps": 2})
    main, own, _ = lazy.phases
    assert (own.name, own.trains, own.every, own.draws, own.repeat) == ("D_r1", "discriminator", 16, "step", 1)
    assert (main.every, main.draws) == (1, "data")
    assert "r1" not in lazy.discriminator_loss(b)[1]
    heavier, found = lazy.r1_loss(b)
    assert found["r1"].item() == float(metrics["r1"])
    assert heavier.item() == pytest.approx(1.5 * 16 * 2 * float(metrics["r1"]))  # the discriminator takes 32 steps between two of these


def test_adam_is_corrected_for_lazy_steps() -> None:
    """Karras et al., 2020, appendix B: 16 steps and one more, so c = 16 / 17, lr c and betas^c; of the discriminator alone."""
    adam = {"name": "adam", "learningRate": 0.0025, "betas": [0.0, 0.99]}

    def settings(**regularization: Any) -> list[Optimizer]:
        spec = {"gan": {"regularization": regularization}, "data": {"source": "builtin:digits"}}
        spec["training"] = {"steps": 1, "optimizers": {"default": adam}}
        manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
        return [Job.model_validate(manifest).spec.optimizer(name) for name in ("discriminator", "generator")]

    judge, maker = settings(r1={"every": 16})
    assert judge.learning_rate == pytest.approx(0.002352941)
    assert judge.betas == pytest.approx([0.0, 0.990586], abs=1e-6)
    assert maker == corrected(maker, 10**12).model_copy(update={"learning_rate": 0.0025, "betas": [0.0, 0.99]})
    assert settings(r1={"every": 1})[0] == maker
    # Between two lazy steps each moment is forgotten by as much as in 16 of the uncorrected optimizer.
    assert judge.betas[1] ** 17 == pytest.approx(0.99**16)


# --- orthogonal ---------------------------------------------------------------------------------------------------------------------


def test_orthogonal_is_the_squared_inner_product_of_every_pair_of_filters() -> None:
    torch.manual_seed(0)
    made = dcgan.Generator(latent_dim=3, channels=4, size=16, image_channels=3, batch_norm=True, spectral=False)
    expected = 0.0
    for layer in made.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            filters = [layer.weight.detach()[:, out].double().flatten() for out in range(layer.out_channels)]  # [in, out, k, k]
            assert len(filters) <= filters[0].numel()
            expected += 2 * sum(float(one @ other) ** 2 for one, other in combinations(filters, 2))
    assert orthogonal(made).item() == pytest.approx(expected, rel=1e-5)


def test_orthogonal_filters_cost_nothing_whatever_their_length_and_in_whichever_direction_they_fit() -> None:
    for shape in ((3, 8), (8, 3)):
        layer = nn.Linear(shape[1], shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.eye(*shape) * 7.0)
        assert orthogonal(layer).item() == pytest.approx(0.0, abs=1e-6)


def test_orthogonal_is_added_to_the_generators_loss_and_sees_the_trained_weight_of_a_normalised_layer() -> None:
    b = batch()
    loss, metrics = gan(regularization={"orthogonal": 0.01}).generator_loss(b)
    assert (loss - gan().generator_loss(b)[0]).item() == pytest.approx(0.01 * metrics["orthogonal"].item(), rel=1e-4)
    torch.manual_seed(0)
    plain = mlp.Generator(latent_dim=3, channels=16, depth=2, dimension=2, batch_norm=False)
    torch.manual_seed(0)
    normalised = mlp.Generator(latent_dim=3, channels=16, depth=2, dimension=2, batch_norm=False, spectral=True)
    assert orthogonal(normalised).item() == orthogonal(plain).item()


# --- clipping -----------------------------------------------------------------------------------------------------------------------


def test_weights_are_clipped_in_place_to_either_side() -> None:
    weights: Tensor = torch.tensor([-1.0, -0.01, 0.003, 0.2])
    clip(0.01)(weights)
    assert weights.tolist() == pytest.approx([-0.01, -0.01, 0.003, 0.01])
