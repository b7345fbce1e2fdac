"""Second opinions of packages that are no dependencies, where they are installed (CONTRIBUTING.md says how): that TRL still gives the
figures that other tests have of it, and DPO's loss and gradient by liger-kernel, which never makes all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.objectives import test_language_distilling as distilling
from trainjobs.api.alignment import Dpo
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.objectives.language.preference import preferred
from trainjobs.objectives.language.tokens import log_probabilities

pytestmark = pytest.mark.slow


def test_the_figures_of_trl_are_trls() -> None:
    trainer = pytest.importorskip("trl.experimental.gkd", reason="needs the package trl").GKDTrainer
    student, teacher = (torch.tensor([rows], dtype=torch.float64) for rows in (distilling.STUDENT, distilling.TEACHER))
    labels = torch.tensor([[0, NOT_LEARNED, 0]])
    for (beta, temperature), figure in distilling.TRL.items():
        told = trainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta, temperature=temperature)
        assert told.item() == pytest.approx(figure, rel=1e-12)


@pytest.mark.parametrize(("loss", "smoothing"), [("sigmoid", 0.0), ("hinge", 0.0), ("robust", 0.1)])
def test_dpo_is_ligers(loss: Any, smoothing: float) -> None:
    """Of six answers to three prompts: chosen and rejected, of unequal length, from hidden states and the last layer's weights."""
    liger = pytest.importorskip("liger_kernel.chunked_loss", reason="needs the package liger-kernel")
    random = torch.Generator().manual_seed(5)
    hidden, before = (torch.randn(6, 7, 8, generator=random) for _ in range(2))
    weight, frozen = (torch.randn(11, 8, generator=random).requires_grad_(own) for own in (True, False))
    labels = torch.randint(11, (6, 7), generator=random)
    for row, length in enumerate((7, 4, 5, 2, 6, 7)):
        labels[row, length:] = NOT_LEARNED
    settings = Dpo(beta=0.2, loss=loss, label_smoothing=smoothing)
    ours, theirs = (log_probabilities(F.linear(one, layer), labels).sum(1) for one, layer in ((hidden, weight), (before, frozen)))
    counts = (labels != NOT_LEARNED).sum(1)
    found = preferred((ours - theirs).view(2, 3).T, counts.view(2, 3).T, settings).mean()  # the chosen come first, as liger has them
    (gradient,) = torch.autograd.grad(found, weight)
    peer = liger.LigerFusedLinearDPOLoss(beta=0.2, loss_type=loss, label_smoothing=smoothing, compiled=False)
    told = peer(weight, hidden, labels, ref_input=before, ref_weight=frozen)
    told = told[0] if isinstance(told, tuple) else told
    torch.testing.assert_close(found, told, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(told, weight)[0], rtol=1e-5, atol=1e-6)
