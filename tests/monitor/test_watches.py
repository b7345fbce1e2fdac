"""Watches over a GAN: each definition by its figures; and real runs, of which the troubled ones are told and the healthy one is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.evaluate.spread import DISTANCE, MOVED, SPREAD, Memory, Spread
from trainjobs.monitor.watches import NORM, GanWatches
from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

ALONE = World(0, 1, torch.device("cpu"))


def said(watches: GanWatches) -> list[str]:
    return [error.what for error in watches.news()]


# --- what is measured ---------------------------------------------------------------------------------------------------------------


def measured(made: torch.Tensor, real: torch.Tensor, memory: Memory) -> dict[str, float]:
    score = Spread(memory)
    score.add(None, Samples(points=made[:2]))
    score.add(None, Samples(points=made[2:]))
    score.add(Batch({"point": real}, None, len(real)), None)  # type: ignore[arg-type]
    return dict(score.result(ALONE))


def test_spread_movement_and_distance_are_known_for_known_points() -> None:
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    apart = (4 * 2 + 2 * 8**0.5) / 6
    memory = Memory()
    first = measured(square / 4, square, memory)
    assert first[SPREAD] == pytest.approx(0.25)
    assert MOVED not in first
    second = measured(square / 4 + torch.tensor([3.0, 4.0]), square, memory)
    assert second[MOVED] == pytest.approx(5.0 / (apart / 4))
    same = measured(square, square, Memory())
    assert same[DISTANCE] == pytest.approx((2 * 6 / 16 * apart * 2 - 2 * apart) / apart)  # pairs of one with itself count in the first term
    assert first[DISTANCE] > same[DISTANCE]


def test_images_are_seen_at_eight_pixels() -> None:
    score = Spread(Memory())
    score.add(None, Samples(images=torch.cat([torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)])))
    score.add(Batch({"image": torch.randn(4, 1, 32, 32)}, None, 4), None)  # type: ignore[arg-type]
    assert score.before.samples is None
    score.result(ALONE)
    assert score.before.samples is not None
    assert score.before.samples.shape == (2, 64)


# --- what is told -------------------------------------------------------------------------------------------------------------------


def test_a_collapse_is_told_once_at_three_evaluations_running_and_again_when_it_comes_back() -> None:
    watches = GanWatches(wasserstein=False)
    for step in (10, 20, 30, 40, 50):  # it has not begun to learn
        watches.evaluated(step, {SPREAD: 0.01})
    assert said(watches) == []
    for spread in (0.8, 0.2, 0.2, 0.26, 0.2, 0.2):
        watches.evaluated(60, {SPREAD: spread})
    assert said(watches) == []
    watches.evaluated(70, {SPREAD: 0.12})
    (what,) = said(watches)
    assert what == "the generator has collapsed: samples differ by 12 % of what data differ by"
    assert isinstance(watches.collapse, JobError)
    watches.evaluated(80, {SPREAD: 0.12})
    assert said(watches) == []
    watches.evaluated(90, {SPREAD: 0.9})
    assert watches.collapse is None
    for _ in range(3):
        watches.evaluated(100, {SPREAD: 0.1})
    assert len(said(watches)) == 1


def test_a_generator_that_never_spread_is_told_from_step_500_on() -> None:
    watches = GanWatches(wasserstein=True)
    for step in range(0, 700, 50):
        watches.evaluated(step, {SPREAD: 0.01})
    assert len(said(watches)) == 1


def test_lost_modes_are_a_collapse() -> None:
    watches = GanWatches(wasserstein=False)
    for modes in (8.0, 3.0, 3.0, 3.0):
        watches.evaluated(10, {SPREAD: 0.9, "modes": modes})
    assert said(watches) == ["the generator has collapsed: 3 of 8 modes are left"]


def test_an_oscillation_moves_and_comes_no_nearer() -> None:
    nearer, standing = GanWatches(wasserstein=False), GanWatches(wasserstein=False)
    for number in range(8):
        nearer.evaluated(number, {SPREAD: 0.8, MOVED: 1.5, DISTANCE: 0.8**number})
        standing.evaluated(number, {SPREAD: 0.8, MOVED: 1.5, DISTANCE: 0.3 - 0.001 * number})
    assert said(nearer) == []
    (what,) = said(standing)
    assert what == "the networks chase each other: samples of the same latents moved 1.5 times as far as they differ"
    for watches, scores in ((nearer, {SPREAD: 0.8, MOVED: 0.9, DISTANCE: 0.3}), (standing, {SPREAD: 0.1, MOVED: 5.0, DISTANCE: 0.3})):
        for _ in range(2):
            watches.evaluated(9, scores)
        assert said(watches) == []


def test_a_vanished_gradient_needs_a_sure_discriminator() -> None:
    def after(norm: float, accuracy: float, *, wasserstein: bool = False) -> list[str]:
        watches = GanWatches(wasserstein)
        for _ in range(10):
            watches.adapt({NORM: 2.0, "accuracy/D": 0.8})
        watches.adapt({NORM: norm, "accuracy/D": accuracy})
        return said(watches)

    assert after(0.0019, 0.995) == ["the generator's gradient has vanished: its norm is 0.0019, and was 2"]
    assert after(0.0021, 0.995) == after(0.0019, 0.98) == after(0.0019, 0.995, wasserstein=True) == []


def test_augmentation_above_four_fifths_is_told() -> None:
    watches = GanWatches(wasserstein=False)
    for p in (0.79, 0.81, 0.9):
        watches.adapt({"augment/p": p})
    assert said(watches) == ["augmentation has reached p = 0.81"]


def test_counts_go_on_from_a_commit() -> None:
    watches = GanWatches(wasserstein=False)
    for spread in (0.8, 0.2, 0.2):
        watches.evaluated(10, {SPREAD: spread})
    for _ in range(5):
        watches.adapt({NORM: 2.0, "accuracy/D": 0.8})
    again = GanWatches(wasserstein=False)
    again.load_state(json.loads(json.dumps(watches.state())))
    again.evaluated(20, {SPREAD: 0.2})
    again.adapt({NORM: 0.001, "accuracy/D": 1.0})
    assert len(said(again)) == 2


# --- real runs ----------------------------------------------------------------------------------------------------------------------

MLP = {"architecture": "mlp", "channels": 32, "layers": 2}
ADAM = {"name": "adam", "betas": [0.5, 0.9]}


def job(steps: int, loss: dict[str, Any], rates: tuple[float, float], recovery: dict[str, Any] | None = None, **gan: Any) -> dict[str, Any]:
    optimizers = {"generator": {**ADAM, "learningRate": rates[0]}, "discriminator": {**ADAM, "learningRate": rates[1]}}
    networks = {"generator": {**MLP, "latentDim": 2, "normalization": "none"}, "discriminator": MLP}
    spec = {
        "gan": {**networks, "loss": loss, **gan},
        "data": {"source": "builtin:ring"},
        "training": {"steps": steps, "batch": {"global": 32}, "optimizers": optimizers},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 1, "everySteps": max(1, steps // 12), "metrics": ["modes"]},
        "checkpoints": {"every": {"steps": steps}},
        "recovery": recovery or {},
    }
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "test"}, "spec": spec}
