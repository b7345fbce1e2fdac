"""The loss scale: that of torch's GradScaler for any course of overflows, and what is no longer its business."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.engine import loss_scale
from trainjobs.engine.loss_scale import LossScale, check
from trainjobs.monitor.meter import Meter
from trainjobs.state import State


def course(seed: int) -> Iterator[bool]:
    """Overflows now and then, and some running."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(300):
        yield bool(torch.rand((), generator=generator) < 0.1)


@pytest.mark.parametrize("seed", [0, 1])
def test_scale_is_that_of_torchs_scaler(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "WINDOW", 7)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    theirs, ours = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=7), LossScale()
    for overflows in course(seed):
        weight.grad = torch.full((1,), torch.inf if overflows else 1.0) * theirs.scale(torch.ones(()))
        theirs.step(optimizer)
        theirs.update()
        ours.update_scale(overflows)
        assert ours.scale == max(theirs.get_scale(), 1.0)
    assert ours.skipped == sum(course(seed)) > 10


def test_the_defaults_are_the_papers() -> None:
    scale = LossScale()
    for _ in range(1999):
        scale.update_scale(False)
    assert scale.scale == 65536.0
    scale.update_scale(False)
    assert (scale.scale, scale.good) == (131072.0, 0)
    scale.update_scale(True)
    assert (scale.scale, scale.skipped, scale.exhausted) == (65536.0, 1, False)


def test_what_overflows_at_scale_1_is_the_models_doing() -> None:
    scale = LossScale()
    for _ in range(16):
        scale.update_scale(True)
        assert not scale.exhausted
    assert scale.scale == 1.0
    scale.update_scale(True)
    assert scale.exhausted
    assert scale.scale == 1.0
    scale.update_scale(False)
    assert not scale.exhausted


def test_a_commit_keeps_scale_and_counters() -> None:
    scale, again = LossScale(), LossScale()
    for overflows in (True, False, False):
        scale.update_scale(overflows)
    again.load_state(scale.state())
    assert again == scale
    assert scale.state() == {"scale": 32768.0, "good": 2, "skipped": 1}


def test_a_step_that_is_skipped_for_the_scale_is_no_divergence() -> None:
    meter, state = Meter(), State(1, 8)
    meter.stepped(state, {"denoiser": SimpleNamespace(diverged=False)})  # type: ignore[dict-item]
    assert meter.first_bad() is None
    meter.stepped(state, {"denoiser": SimpleNamespace(diverged=True)})  # type: ignore[dict-item]
    assert meter.first_bad() == state
    assert meter.skipped() == ["denoiser"]


def test_a_device_without_fp16_is_refused_from_stage_1_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "get_accelerator", lambda: SimpleNamespace(is_fp16_supported=lambda: False))
    check(0, torch.device("cpu"))
    with pytest.raises(JobError, match="stage 2") as refused:
        check(2, torch.device("cpu"))
    assert refused.value.code == "GTJ0104"
    assert "deepspeed.stage: 0" in refused.value.how


def test_adr_says_what_holds() -> None:
    assert "fp16" in (Path(__file__).parents[2] / "docs" / "adr" / "0005-bf16-at-stage-0-is-autocast.md").read_text()
