"""The figures by their own authors' or their users' code (clouds.json says whose), and by what they are in closed form."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evaluate.clouds import CLOUDS, cloud, logits
from trainjobs.evaluate.frechet import Moments, frechet
from trainjobs.evaluate.inception_score import inception_score
from trainjobs.evaluate.kernel_distance import kernel_distance, unbiased
from trainjobs.evaluate.manifold import precision, radii, recall

TABLE: dict[str, dict[str, dict[str, float]]] = json.loads((Path(__file__).parent / "clouds.json").read_text())["clouds"]


def ours(word: str, name: str) -> float:
    real, made = cloud(name)
    return {
        "fid": lambda: frechet(Moments.of(real), Moments.of(made)),
        "kid": lambda: kernel_distance(real, made),
        "is": lambda: inception_score(logits(name), parts=1),
        "precision": lambda: precision(real, made),
        "recall": lambda: recall(real, made),
    }[word]()


@pytest.mark.parametrize(("name", "word"), [(name, word) for name, words in TABLE.items() for word in words])
def test_figures_are_those_of_others(name: str, word: str) -> None:
    for theirs in TABLE[name][word].values():
        assert ours(word, name) == pytest.approx(theirs, rel=1e-9 if word != "fid" else 1e-8)


def test_every_cloud_is_in_the_table() -> None:
    assert {*TABLE} == {*CLOUDS}
    assert all({"fid", "is", "precision", "recall"} <= {*words} for words in TABLE.values())


def test_the_distance_of_two_gaussians_is_that_of_their_formula() -> None:
    """Diagonal covariances commute: |m - m'|² + sum (s - s')²."""
    mean, other = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    s, t = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([3.0, 0.5, 1.5]).double()
    found = frechet(Moments(mean, s.square().diag()), Moments(other, t.square().diag()))
    assert found == pytest.approx(float((mean - other).square().sum() + (s - t).square().sum()), abs=1e-12)


def test_it_is_the_same_in_any_coordinates_and_nothing_between_equals() -> None:
    real, made = cloud("far")
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).double())[0]
    one, other = frechet(Moments.of(real), Moments.of(made)), frechet(Moments.of(real.double() @ turn), Moments.of(made.double() @ turn))
    assert one == pytest.approx(other, rel=1e-9)
    assert frechet(Moments.of(made), Moments.of(real)) == pytest.approx(one, rel=1e-9)
    assert frechet(Moments.of(real), Moments.of(real)) == pytest.approx(0.0, abs=1e-9)


def test_moments_are_numpys() -> None:
    real, _ = cloud("near")
    found = Moments.of(real)
    assert np.allclose(found.covariance.numpy(), np.cov(real.double().numpy(), rowvar=False), rtol=0, atol=1e-12)


def by_loops(x: Tensor, y: Tensor) -> float:
    """The paper's equation, pair by pair."""

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / len(a) + 1.0) ** 3

    m = len(x)
    own = sum(k(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return own - 2.0 * sum(k(a, b) for a in x for b in y) / m**2


def test_the_kernel_distance_is_the_papers_sum() -> None:
    real, made = (part[:12].double() for part in cloud("near"))
    assert unbiased(real, made) == pytest.approx(by_loops(real, made), rel=1e-12)


def test_subsets_are_the_same_each_time_and_their_mean_is_near_the_whole() -> None:
    real, made = cloud("many")
    whole = unbiased(real[:1200].double(), made.double())
    some = kernel_distance(real, made, subsets=10, largest=400)
    assert some == kernel_distance(real, made, subsets=10, largest=400)
    assert some == pytest.approx(whole, abs=0.25 * abs(whole))
    torch.manual_seed(1)
    assert kernel_distance(real, made, subsets=10, largest=400) == some


def test_of_equal_distributions_it_is_around_nothing_and_may_be_below() -> None:
    """Without bias: the mean over many draws is 0, which the biased estimate's is not."""
    noise = torch.Generator().manual_seed(3)
    found = [unbiased(*torch.randn(2, 40, 4, generator=noise).double()) for _ in range(200)]
    spread = float(np.std(found)) / math.sqrt(len(found))
    assert abs(float(np.mean(found))) < 4 * spread
    assert min(found) < 0


def test_a_classifier_that_is_sure_of_every_class_has_their_number_for_a_score() -> None:
    sure = 50.0 * torch.eye(10).repeat(20, 1)
    assert inception_score(sure, parts=10) == pytest.approx(10.0, rel=1e-6)
    assert inception_score(torch.ones(200, 10)) == pytest.approx(1.0, rel=1e-6)
    assert inception_score(sure[:1].expand(200, -1)) == pytest.approx(1.0, rel=1e-6), "one class again and again"


def test_parts_have_their_own_marginal() -> None:
    """Sorted by class, each part has one class alone: numpy's sum over the parts says the same."""
    found = logits("near").double()
    p = torch.softmax(found, dim=1).numpy()
    theirs = [np.exp((part * (np.log(part) - np.log(part.mean(0)))).sum(1).mean()) for part in np.array_split(p, 10)]
    assert inception_score(found) == pytest.approx(float(np.mean(theirs)), rel=1e-12)


def test_precision_and_recall_of_balls_on_a_line() -> None:
    """Real at 0, 1, 2, 3 with the second nearest: radii 2, 1, 1, 2. Generated at 5 is within 2 of 3, at 5.1 within none."""
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert radii(real, 2).tolist() == [2.0, 1.0, 1.0, 2.0]
    assert precision(real, torch.tensor([[5.0], [5.1], [-2.0], [1.5]]), 2) == 0.75
    assert recall(real, torch.tensor([[0.0], [0.1], [0.2]]), 2) == 0.25


def test_a_collapse_keeps_precision_and_loses_recall() -> None:
    real, _ = cloud("near")
    made = real[:1] + 1e-4 * cloud("near")[1]
    assert precision(real, made) == 1.0
    assert recall(real, made) < 0.05


def test_what_is_no_number_is_no_figure() -> None:
    real, made = cloud("near")
    broken = made.clone()
    broken[0, 0] = torch.nan
    assert math.isnan(frechet(Moments.of(real), Moments.of(broken)))
    assert math.isnan(kernel_distance(real, broken))
    assert precision(real, broken) <= precision(real, made)


def test_rows_are_looked_at_in_pieces(monkeypatch: Any) -> None:
    real, made = cloud("many")
    whole = precision(real, made), recall(real, made)
    monkeypatch.setattr("trainjobs.evaluate.manifold._ROWS", 37)
    assert (precision(real, made), recall(real, made)) == whole
