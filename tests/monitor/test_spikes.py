"""What is usual for a loss, against a weighted mean and variance computed at once; what is a spike, and what resuming sees."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from trainjobs.monitor.spikes import NOTHING, LossAverages

WINDOW, Z = 10, 6.0


def series(count: int = 200, seed: int = 0) -> list[float]:
    """A loss that falls and settles, with noise."""
    dice = random.Random(seed)
    return [2 + 3 * math.exp(-step / 20) + dice.gauss(0, 0.1) for step in range(count)]


def run(losses: list[float], watch: LossAverages = NOTHING, name: str = "loss", window: int = WINDOW) -> tuple[LossAverages, list[int]]:
    """The state after all of them, and the steps (from 0) at which spikes begin."""
    spikes = []
    for step, loss in enumerate(losses):
        watch, begun = watch.after({name: loss}, window, Z)
        spikes += [step] * len(begun)
    return watch, spikes


@pytest.mark.parametrize("count", [1, WINDOW - 1, WINDOW, 200])
def test_usual_is_the_weighted_mean_and_variance(count: int) -> None:
    losses = np.array(series(count))
    shares = np.maximum(1 / np.arange(1, count + 1), 1 / WINDOW)
    weights = shares * np.append(np.cumprod((1 - shares)[::-1])[::-1][1:], 1.0)
    assert weights.sum() == pytest.approx(1)
    mean = weights @ losses
    known = run(losses.tolist())[0].averages["loss"]
    assert known.count == count
    assert known.mean == pytest.approx(mean, rel=1e-12)
    assert known.variance == pytest.approx(weights @ (losses - mean) ** 2, rel=1e-9, abs=1e-15)


def test_a_quiet_loss_has_no_spikes() -> None:
    for seed in range(20):
        assert run(series(seed=seed))[1] == []


@pytest.mark.parametrize(("rise", "found"), [(0.5, []), (1.0, [150]), (1e6, [150])])
def test_a_rise_of_ten_deviations_is_one_and_of_five_is_none(rise: float, found: list[int]) -> None:
    losses = series()
    losses[150] = 2 + rise
    assert run(losses)[1] == found


def test_a_fall_is_none() -> None:
    losses = series()
    losses[150] = -100.0
    assert run(losses)[1] == []


def test_none_before_the_window_is_full() -> None:
    early, late = [1.0] * (WINDOW - 1) + [100.0], [1.0] * WINDOW + [100.0]
    assert run(early)[1] == []
    assert run(late)[1] == [WINDOW]


def test_a_loss_that_hardly_moves_spikes_only_by_a_share_of_itself() -> None:
    assert run([1.0] * 20 + [1.05])[1] == []
    assert run([1.0] * 20 + [1.07])[1] == [20]
    assert run([0.0] * 20 + [1e-9])[1] == [], "nothing is known of the scale of a loss that was 0"


def test_one_spike_hardly_moves_what_is_usual() -> None:
    losses = series()
    quiet = run(losses)[0].averages["loss"]
    losses[-1] = 1e9
    assert run(losses)[0].averages["loss"].mean == pytest.approx(quiet.mean, abs=0.2)


def test_a_rise_for_good_is_said_once_and_becomes_usual() -> None:
    losses = series(150) + [loss + 50 for loss in series(150)]
    watch, spikes = run(losses)
    assert spikes == [150]
    assert watch.averages["loss"].mean == pytest.approx(52, abs=0.5)
    assert not watch.high


def test_losses_are_watched_apart_and_numbers_that_are_none_are_passed_over() -> None:
    watch = NOTHING
    for step in range(30):
        watch, spikes = watch.after({"loss/D": 1.0 + step % 2, "loss/G": math.nan if step == 7 else 10.0}, WINDOW, Z)
        assert spikes == []
    watch, spikes = watch.after({"loss/D": 100.0, "loss/G": 10.0}, WINDOW, Z)
    assert [spike.name for spike in spikes] == ["loss/D"]
    assert str(spikes[0]).startswith("loss/D 100, ")
    assert "above its mean of 1.5" in str(spikes[0])
    watch, spikes = watch.after({"loss/D": 1.0}, WINDOW, Z)  # a phase that is not of every step
    assert (watch.averages["loss/D"].count, watch.averages["loss/G"].count) == (32, 30)


@pytest.mark.parametrize("cut", [0, 1, WINDOW, 120, 150, 151, 155])
def test_going_on_from_what_a_commit_kept_is_the_same_to_the_last_bit(cut: int) -> None:
    losses = series()
    losses[150:153] = [50.0, 60.0, 70.0]
    whole, spikes = run(losses)
    first, before = run(losses[:cut])
    kept = LossAverages.from_dict(json.loads(json.dumps(first.to_dict())))
    assert kept == first
    second, after = run(losses[cut:], kept)
    assert second == whole
    assert before + [cut + step for step in after] == spikes == [150]
