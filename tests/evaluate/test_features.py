"""Networks that say what a picture looks like: the shipped classifier classifies, random weights are orthogonal and the same everywhere."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from bench.digits_classifier import accuracy, trained
from trainjobs.data import digits
from trainjobs.evaluate.features import WEIGHTS, WIDTHS, Classifier, builtin, filters
from trainjobs.evaluate.frechet import Moments, frechet
from trainjobs.noise import Noise

CPU = torch.device("cpu")


def classifier() -> Classifier:
    network = Classifier()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def test_the_shipped_classifier_is_right_on_digits_that_it_was_not_trained_on() -> None:
    assert accuracy(classifier()) >= 0.95
    assert sum(parameter.numel() for parameter in classifier().parameters()) == 85_066


@pytest.mark.slow
def test_it_can_be_made_again() -> None:
    made = trained()
    assert accuracy(made) >= 0.95
    shipped = classifier().state_dict()
    for name, value in made.state_dict().items():  # another processor rounds otherwise, and training makes much of that
        assert torch.nn.functional.cosine_similarity(value.flatten(), shipped[name].flatten(), dim=0) > 0.9


@pytest.mark.parametrize("size", [8, 16, 24, 32, 64])
def test_digits_are_known_at_any_size(size: int) -> None:
    """And in colour, which is grey here."""
    images, labels = torch.from_numpy(digits.load(size)[:200]), torch.from_numpy(digits.labels()[:200])
    features, logits = builtin(True, CPU).of(images.expand(-1, 3, -1, -1))
    assert features.shape == (200, 64)
    assert logits is not None
    assert float((logits.argmax(dim=1) == labels).float().mean()) > 0.9


@pytest.mark.parametrize(("number", "width", "above"), [(n, w, a) for n, (a, w) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False))])
def test_random_filters_are_orthogonal(number: int, width: int, above: int) -> None:
    rows = filters(number, width, above).flatten(1).double()
    gram = rows @ rows.T
    assert torch.allclose(gram, torch.eye(width).double() * (2.0 / 1.04), atol=1e-6)


def test_random_weights_are_these_on_every_machine_and_leave_the_runs_own_numbers_alone() -> None:
    torch.manual_seed(5)
    features = builtin(False, CPU)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    images = Noise(3, torch.arange(2)).uniform("picture", 3, 16, 16) * 2.0 - 1.0
    found, logits = features.of(images)
    assert logits is None
    assert found.shape == (2, 240)
    expected = torch.tensor([0.196706, 0.045777, -0.038829, -0.025747, 0.655827, 0.312694, -0.156211, 1.186855])
    assert torch.allclose(found[0, ::30], expected, atol=1e-5)


@pytest.mark.parametrize("size", [8, 33, 64, 200])
@pytest.mark.parametrize("channels", [1, 3])
def test_random_weights_see_pictures_of_any_size(size: int, channels: int) -> None:
    found, _ = builtin(False, CPU).of(torch.rand(2, channels, size, size) * 2.0 - 1.0)
    assert found.shape == (2, 240)
    assert bool(found.isfinite().all())


def test_random_weights_tell_pictures_apart() -> None:
    """Halves of the same digits are near, the same digits blurred or turned over far."""
    images = torch.from_numpy(digits.load(16))
    features = builtin(False, CPU)
    ours, same = (Moments.of(features.of(images[start::2])[0]) for start in (0, 1))
    blurred = torch.nn.functional.avg_pool2d(images[1::2], 3, stride=1, padding=1)
    near = frechet(ours, same)
    for other in (blurred, images[1::2].flip(-1), -images[1::2]):
        assert frechet(ours, Moments.of(features.of(other)[0])) > 10 * near


def test_pictures_are_clipped_and_never_in_half_precision() -> None:
    features = builtin(True, CPU)
    images = torch.from_numpy(digits.load(16)[:4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(features.of(images)[0], features.of(images)[0].float())
        inside = features.of(images)[0]
    assert torch.equal(inside, features.of(images)[0])
    assert torch.equal(features.of(images * 3.0)[0], features.of((images * 3.0).clamp(-1.0, 1.0))[0])


def test_the_distance_of_the_two_halves_of_the_digits_is_small_beside_that_of_noise() -> None:
    images = torch.from_numpy(digits.load(16))
    features = builtin(True, CPU)
    one, other = (Moments.of(features.of(images[start::2])[0]) for start in (0, 1))
    noise = Moments.of(features.of(torch.rand(898, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0)[0])
    assert frechet(one, other) < 0.02 * frechet(one, noise)
