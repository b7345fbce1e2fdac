"""Early stopping counts in evaluations, goes on from its state, and says why it ended; a metric that nobody measures is named."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.api.training import Training
from trainjobs.monitor.followed import Followed


def followed(**fields: Any) -> Followed:
    return Followed(Training.model_validate({"steps": 10, **fields}))


def reference(values: list[float], patience: int, delta: float) -> int | None:
    """The evaluation after which it is over, as Keras' EarlyStopping counts: written down once more, from the end."""
    for end in range(1, len(values) + 1):
        seen, wait, best = values[:end], 0, float("inf")
        for value in seen:
            better = value < best - delta
            best, wait = (value, 0) if better else (best, wait + 1)
        if wait >= patience:
            return end
    return None


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_it_is_over_when_nothing_got_better(patience: int, delta: float) -> None:
    values = [5.0, 4.0, 3.95, 3.9, 3.7, 3.75, 3.69, 3.68, 3.67]
    found = followed(earlyStopping={"patience": patience, "minDelta": delta})
    end = None
    for number, value in enumerate(values, 1):
        words = found.told({"heldout/loss": value})
        again = followed(earlyStopping={"patience": patience, "minDelta": delta})
        for name, kept in again.keeps.items():
            kept.load_state(found.keeps[name].state())
        found = again
        if found.over:
            end = number
            assert words == found.why
            assert f"in {patience} evaluation" in words
            break
        assert words == ""
    assert end == reference(values, patience, delta)


def test_a_metric_that_is_to_rise_is_known_as_such() -> None:
    found = followed(earlyStopping={"metric": "modes", "patience": 2})
    for value in (1.0, 2.0, 3.0, 3.0):
        found.told({"modes": value})
        assert not found.over
    assert found.told({"modes": 2.0}).startswith("stopped early: modes was not better than 3 in 2 evaluations")


def test_rates_fall_and_it_is_told() -> None:
    found = followed(schedule={"name": "plateau", "patience": 0, "factor": 0.5})
    assert found.ratio == 1.0
    assert found.told({"heldout/loss": 1.0}) == ""
    assert "heldout/loss is on a plateau: learning rates are 0.5" in found.told({"heldout/loss": 1.0})
    assert (found.ratio, found.over, found.why) == (0.5, False, "")


def test_a_metric_that_nobody_measures_is_named() -> None:
    with pytest.raises(JobError, match='"accuracy" is not measured') as refused:
        followed(earlyStopping={"metric": "accuracy"}).told({"heldout/loss": 1.0})
    assert (refused.value.code, refused.value.where) == ("GTJ0102", "spec.training.earlyStopping.metric")
    assert "heldout/loss" in refused.value.why


def test_without_either_nothing_is_kept() -> None:
    found = followed()
    assert (found.keeps, found.ratio, found.told({})) == ({}, 1.0, "")
