"""DiffAugment against the numbers of the authors' functions, and what holds of every augmentation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainjobs.api.gan import Gan
from trainjobs.models import dcgan
from trainjobs.noise import Noise
from trainjobs.objectives.gan.diffaugment import diffaugment
from trainjobs.objectives.gan.objective import GanObjective
from trainjobs.objectives.phase import Batch

# By policy, of each of four samples, the sum of its augmented pixels times cos(0), cos(1), ...: what `DiffAugment` of lightweight-gan 1.2.1
# (lightweight_gan/diff_augment.py, the authors' functions) makes of `pictures()`, with torch.rand and torch.randint giving the numbers that
# `noise()` has. It was run once; the pixels themselves differed by 0, at sizes 7, 8, 16, 30 and 32, with 1 and 3 channels.
REFERENCE = {
    "color": [0.1658, 427.23303, 8.56197, -265.17352],
    "translation": [289.76208, 7.41093, 293.31274, 359.76794],
    "cutout": [1.68883, 334.86246, 78.3288, -271.72977],
    "color+translation+cutout": [168.69302, 8.50688, 24.63203, 195.46967],
    "cutout+color": [0.94885, 374.86929, 7.73699, -199.84296],
}
WHOLE = ["color", "translation", "cutout"]


def pictures(size: int = 16, channels: int = 3, count: int = 4) -> Tensor:
    return torch.sin(torch.arange(count * channels * size * size).float()).view(count, channels, size, size)


def noise(count: int = 4) -> Noise:
    return Noise.of(3, 5, "D", torch.arange(count))


@pytest.mark.parametrize("policy", REFERENCE)
def test_pixels_are_those_of_the_authors_functions(policy: str) -> None:
    made = diffaugment(pictures(), policy.split("+"), noise(), "a")
    weights = torch.cos(torch.arange(3 * 16 * 16).float())
    assert (made.flatten(1) @ weights).tolist() == pytest.approx(REFERENCE[policy], abs=1e-3)


def test_a_sample_is_augmented_alike_however_the_batch_is_cut() -> None:
    whole, x = diffaugment(pictures(count=8), WHOLE, noise(8), "a"), pictures(count=8)
    parts = [diffaugment(x[i : i + 2], WHOLE, Noise(noise().seed, torch.arange(i, i + 2)), "a") for i in range(0, 8, 2)]
    assert torch.equal(torch.cat(parts), whole)


def test_every_shift_and_place_of_a_hole_occurs() -> None:
    """Of 8 pixels: shifts of -1, 0 and 1, what leaves is grey; holes of 4 x 4, also over the edge."""
    many = noise(2000)
    ones = torch.ones(2000, 1, 8, 8)
    rows = {int(picture[0, :, 3].sum()) for picture in diffaugment(ones, ["translation"], many, "a")}
    assert rows == {7, 8}
    holes = {int((picture == 0).sum()) for picture in diffaugment(ones, ["cutout"], many, "a")}
    assert holes == {a * b for a in (2, 3, 4) for b in (2, 3, 4)}


def test_gradients_reach_the_generator_through_it() -> None:
    x = pictures(8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: diffaugment(x, WHOLE, noise(), "a"), x, fast_mode=True)


def seen(phase: str, **augment: object) -> list[Tensor]:
    """What a discriminator is shown in a phase."""
    torch.manual_seed(0)
    shown: list[Tensor] = []
    g = dcgan.Generator(latent_dim=4, channels=2, size=8, image_channels=1, batch_norm=False)
    d = dcgan.Discriminator(channels=2, size=8, image_channels=1, batch_norm=False, spectral=False)
    d.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0].detach()))
    gan = GanObjective(
        g, d, Gan.model_validate({"generator": {"latentDim": 4}, "regularization": {"r1": {"every": 4}}, **augment}), "image"
    )
    batch = Batch({"image": pictures(8, 1)}, Noise.of(1, 0, "X", torch.arange(4)), 4)
    next(found for found in gan.phases if found.name == phase).loss(batch)
    return shown


def test_real_and_generated_samples_are_augmented_apart_in_every_phase_and_samples_never() -> None:
    augment = {"augment": {"policy": ["color"]}}
    assert torch.equal(seen("D")[0], pictures(8, 1))
    assert not torch.equal(seen("D", **augment)[0], pictures(8, 1))
    by_real, by_fake = (augmented - plain for augmented, plain in zip(seen("D", **augment), seen("D"), strict=True))
    assert not torch.allclose(by_real.mean(dim=(1, 2, 3)), by_fake.mean(dim=(1, 2, 3)), atol=1e-3)
    assert torch.equal(seen("D_r1", **augment)[0], seen("D", **augment)[0])  # the same names under the same phase's noise
    assert torch.equal(seen("G", **augment)[0], seen("D", **augment)[1])
    gan = GanObjective(
        dcgan.Generator(latent_dim=4, channels=2, size=8, image_channels=1, batch_norm=False),
        torch.nn.Identity(),
        Gan.model_validate({"generator": {"latentDim": 4}, **augment}),
        "image",
    )
    images = gan.sample(Batch({}, noise(), 4)).images
    assert images is not None
    assert torch.equal(images, gan.generator(noise().normal("z", 4)))
