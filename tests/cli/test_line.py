"""The line of progress: what is on it, and that it fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.cli.line import live, plain

RUNNING: dict[str, Any] = {
    "phase": "Running",
    "step": 1200,
    "totalSteps": 5000,
    "metrics": {"loss/D": 0.612, "loss/G": 1.3208, "score/real": 2.0},
    "throughput": {"value": 812.4, "unit": "samples/s"},
    "memoryBytes": 33.5e9,
    "etaSeconds": 4320,
}


def test_eighty_columns_hold_what_matters() -> None:
    line = live("faces-wgan", RUNNING, width=79, tick=0, elapsed=3)
    assert line == "⠋ 24% 1200/5000  loss D 0.612 G 1.321  812.4 samples/s  31.2 GiB  ETA 1h12m"


def test_a_wide_terminal_shows_everything() -> None:
    line = live("faces-wgan", {**RUNNING, "metrics": {**RUNNING["metrics"], "heldout/loss": 0.5}}, width=200, tick=0, elapsed=3)
    assert line.startswith("⠋ faces-wgan  ━━──────────  24% 1200/5000")
    assert "held-out 0.5" in line


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"loss/policy": -0.0123, "loss/value": 0.31, "reward": 0.7512, "kl/k1": 0.02}, "loss policy -0.0123 value 0.31  reward 0.7512"),
        ({"loss": 0.531, "rewards/accuracy": 0.875, "rewards/margin": 0.4}, "loss 0.531  accuracy 0.875"),
    ],
)
def test_eighty_columns_hold_what_is_to_rise(metrics: dict[str, float], shown: str) -> None:
    progress = {**RUNNING, "metrics": metrics, "throughput": {"value": 812.4, "unit": "tokens/s"}}
    assert shown in live("smollm2-preferences", progress, width=79, tick=0, elapsed=3)
    assert shown.replace("  ", ", ") in plain("smollm2-preferences", progress, elapsed=3)


@given(width=st.integers(10, 200), name=st.text(min_size=1, max_size=80), step=st.integers(0, 10**9), tick=st.integers(0, 99))
def test_it_never_exceeds_the_width(width: int, name: str, step: int, tick: int) -> None:
    assert len(live(name, {**RUNNING, "step": step}, width=width, tick=tick, elapsed=1)) <= width
    assert len(live(name, {"phase": "Starting", "message": name * 3}, width=width, tick=tick, elapsed=1)) <= width


@pytest.mark.parametrize(("share", "words"), [(0.123, "waiting for data 12 %"), (0.0501, "waiting for data 5 %"), (0.05, ""), ("nan", "")])
def test_waiting_for_data_is_told_when_it_is_worth_it(share: object, words: str) -> None:
    progress = {**RUNNING, "metrics": {"loss": 0.5, "data/wait": share}}
    for line in (live("a", progress, width=200, tick=0, elapsed=0), plain("a", progress, elapsed=0)):
        assert ("waiting for data" in line) == bool(words)
        assert words in line


def test_before_the_first_step_it_says_what_is_being_waited_for() -> None:
    starting = {"phase": "Starting", "message": "starting Ray", "step": 0, "totalSteps": 100}
    assert live("digits", starting, width=79, tick=1, elapsed=12.4) == "⠙ digits  starting Ray  12s"
    assert plain("digits", starting, elapsed=12.4) == "digits: starting Ray (12s)"


def test_a_terminal_without_unicode_gets_none() -> None:
    assert live("a", RUNNING, width=200, tick=3, elapsed=0, ascii_only=True).isascii()
    assert live("a", {}, width=200, tick=3, elapsed=0, ascii_only=True).isascii()


@pytest.mark.parametrize("value", ["nan", float("nan")])
def test_a_loss_that_is_not_a_number_is_shown_as_such(value: object) -> None:
    assert "loss nan" in plain("a", {**RUNNING, "metrics": {"loss": value}}, elapsed=0)


def test_an_empty_progress_is_a_line_too() -> None:
    assert live("a", {}, width=79, tick=0, elapsed=0) == "⠋ a  starting  0s"


def test_what_is_done_beside_steps_stands_beside_the_step() -> None:
    drawing = {**RUNNING, "activity": "drawing 64 samples, 23/64"}
    line = live("faces-wgan", drawing, width=79, tick=0, elapsed=3)
    assert line == "⠋ 24% 1200/5000  drawing 64 samples, 23/64  loss D 0.612 G 1.321  ETA 1h12m"
    assert plain("faces-wgan", drawing, elapsed=3).startswith("faces-wgan: 24% 1200/5000, drawing 64 samples, 23/64, loss D")


@pytest.mark.parametrize("value", [None, 5, {"a": 1}, ""])
def test_no_activity_is_none(value: object) -> None:
    assert plain("a", {**RUNNING, "activity": value}, elapsed=3) == plain("a", RUNNING, elapsed=3)
