"""Divergences from a teacher against TRL's numbers; the loss by hand; whose completions are taught; the teacher's vocabulary."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.objectives.test_language_loss import bigram
from trainjobs.api.alignment import Distill
from trainjobs.api.errors import JobError
from trainjobs.api.language import LanguageLoss
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.noise import Noise
from trainjobs.objectives.language.distilling import DistillObjective
from trainjobs.objectives.language.divergence import divergence, divergence_of_likeliest, likeliest
from trainjobs.objectives.phase import Batch

END = ByteTokenizer().end

# TRL 1.16.0's GKDTrainer.generalized_jsd_loss with labels, float64: three tokens of which two are learned; by beta and temperature. TRL
# leaves the square of the temperature out.
STUDENT = [[0.4, -1.2, 2.0, 0.3], [1.1, 0.2, -0.7, 0.9], [-0.5, 0.8, 0.1, -1.4]]
TEACHER = [[1.3, -0.4, 0.9, -0.2], [0.6, 1.5, -1.1, 0.0], [0.2, 0.7, -0.9, 1.0]]
TRL = {
    (0.0, 1.0): 0.5323554357641803,
    (0.0, 2.0): 0.14032994425515957,
    (0.3, 1.0): 0.0970334906207741,
    (0.3, 2.0): 0.02821779018999977,
    (0.5, 1.0): 0.11012021537356317,
    (0.5, 2.0): 0.03297398162852758,
    (1.0, 1.0): 0.4273864486162899,
    (1.0, 2.0): 0.12948046126599672,
}


@pytest.mark.parametrize(("beta", "temperature"), TRL)
def test_divergences_are_trls(beta: float, temperature: float) -> None:
    student, teacher = (torch.tensor(rows, dtype=torch.float64)[[0, 2]] for rows in (STUDENT, TEACHER))
    assert divergence(student, teacher, beta, temperature).mean().item() == pytest.approx(TRL[beta, temperature], rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_of_the_likeliest_tokens_all_others_are_one_class(beta: float) -> None:
    """By hand; never more than of all tokens, and with all of them the same."""
    student, teacher = (torch.randn(20, 9, generator=torch.Generator().manual_seed(seed)).double() * 3 for seed in (0, 1))
    whole, before = divergence(student, teacher, beta, 2.0), torch.zeros(20).double()
    for k in range(1, 10):
        told = likeliest(teacher, k, 2.0)
        found = divergence_of_likeliest(student, told, beta, 2.0)
        for row in range(20):
            p, q = ((one[row] / 2).softmax(0).tolist() for one in (teacher, student))
            kept = sorted(range(9), key=lambda token: -p[token])[:k]
            p, q = ([one[token] for token in kept] + ([1 - sum(one[token] for token in kept)] if k < 9 else []) for one in (p, q))
            m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
            kl = lambda p, q: sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))  # noqa: E731
            wanted = {0.0: lambda: kl(p, q), 1.0: lambda: kl(q, p)}.get(beta, lambda: beta * kl(p, m) + (1 - beta) * kl(q, m))()  # noqa: B023
            assert found[row].item() == pytest.approx(wanted, abs=1e-9)
        assert (found >= before - 1e-12).all()  # each token that is told apart tells more
        assert (found <= whole + 1e-12).all()
        before = found
    torch.testing.assert_close(before, whole)
    assert divergence_of_likeliest(teacher, likeliest(teacher, 3, 2.0), beta, 2.0).abs().max() < 1e-12


def test_a_rest_that_is_nearly_nothing_has_a_gradient() -> None:
    student = torch.tensor([[40.0, 0.0, 1.0]], requires_grad=True)
    told = likeliest(torch.tensor([[50.0, 0.0, 0.0]]), 1, 1.0)
    for beta in (0.0, 0.5, 1.0):
        (gradient,) = torch.autograd.grad(divergence_of_likeliest(student, told, beta, 1.0).sum(), student)
        assert gradient.isfinite().all()


def batch(**more: Tensor) -> Batch:
    """Two rows of prompts of two tokens, answers of two and of three."""
    tokens = torch.tensor([[1, 2, 3, END], [1, 2, 4, 5]])
    labels = torch.tensor([[NOT_LEARNED, 3, END, NOT_LEARNED], [NOT_LEARNED, 4, 5, END]])
    return Batch({"tokens": tokens, "labels": labels, **more}, Noise.of(0, 0, "train", torch.arange(2)), 2)


def objective(settings: Distill, context: int = 8) -> DistillObjective:
    teacher = bigram()
    with torch.no_grad():
        teacher.table.add_(torch.randn(257, 257, generator=torch.Generator().manual_seed(3)))
    return DistillObjective(bigram(), teacher, ByteTokenizer(), context, LanguageLoss(), settings)


def test_the_loss_is_the_divergence_times_the_temperature_squared_beside_the_cross_entropy() -> None:
    ours = objective(Distill(temperature=2.0, alpha=0.3))
    loss, metrics = ours.loss(batch())
    steps = [(2, 3), (3, END), (2, 4), (4, 5), (5, END)]
    found, crossed = [], []
    teacher: Any = ours.teacher
    for a, b in steps:
        p, q = ((one.table[a].double() / 2).softmax(0) for one in (teacher, ours.model))
        found.append(float((p * (p / q).log()).sum().detach()))
        crossed.append(-float(ours.model.table[a].double().log_softmax(0)[b].detach()))  # type: ignore[union-attr, index, operator]
    assert loss.item() == pytest.approx(0.3 * 4 * sum(found) / 5 + 0.7 * sum(crossed) / 5, rel=1e-5)
    assert metrics["divergence"].item() == pytest.approx(sum(found) / 5, rel=1e-5)
    assert metrics["cross_entropy"].item() == pytest.approx(sum(crossed) / 5, rel=1e-5)
    loss.backward()
    assert ours.model.table.grad is not None  # type: ignore[union-attr]
    total, count = ours.heldout(batch())["loss"]
    assert (total / count).item() == pytest.approx(sum(crossed) / 5, rel=1e-5)
    # What the student drew is no data: of that row the divergence alone counts.
    loss, _ = ours.loss(batch(drawn=torch.tensor([False, True])))
    wanted = 0.3 * 4 * sum(found[:2]) + 0.7 * sum(crossed[:2]) + 4 * sum(found[2:])
    assert loss.item() == pytest.approx(wanted / 5, rel=1e-5)


@pytest.mark.slow
def test_a_share_of_completions_is_the_students_own() -> None:
    from tests.objectives.test_language_answers import network

    ours = DistillObjective(
        network("gpt2").eval(), None, ByteTokenizer(), 12, LanguageLoss(), Distill(on_policy=0.5, max_completion=5), stream=False
    )
    tokens = torch.tensor([[1, 2, 3, END]] * 40)
    labels = torch.tensor([[NOT_LEARNED, 3, END, NOT_LEARNED]] * 40)
    given = Batch({"tokens": tokens, "labels": labels}, Noise.of(0, 0, "rollout", torch.arange(40)), 40)
    with torch.no_grad():
        rows = ours.make(given)
    drawn = rows["drawn"]
    assert 10 < int(drawn.sum()) < 30
    assert rows["tokens"].shape == rows["labels"].shape == (40, 12)
    assert torch.equal(rows["tokens"][~drawn][:, :4], tokens[~drawn])
    assert torch.equal(rows["labels"][~drawn][:, :4], labels[~drawn])
    assert (rows["tokens"][:, :2] == tokens[:, :2]).all()
    assert ((rows["labels"] != NOT_LEARNED).sum(dim=1)[drawn] <= 5).all()
    assert (rows["labels"][drawn][:, 1] != 3).any()
    # A row's own completion does not depend on who is beside it.
    with torch.no_grad():
        alone = ours.make(Batch({"tokens": tokens[7:8], "labels": labels[7:8]}, Noise.of(0, 0, "rollout", torch.tensor([7])), 1))
    assert torch.equal(alone["tokens"][0], rows["tokens"][7])


@pytest.mark.slow
def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    import json

    from tests.models.bases import base
    from trainjobs.api.pretrained import Base
    from trainjobs.checkpointer.taught import same_vocabulary
    from trainjobs.data.pretrained import fetched
    from trainjobs.data.pretrained_tokenizer import read

    def found(name: str) -> Any:
        uri = f"file://{tmp_path / name}"
        return fetched(Base(source=uri), uri, tmp_path / "cache")

    base(tmp_path / "one")
    base(tmp_path / "other", "llama")
    same_vocabulary(found("other"), read(found("one")))
    told = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    vocabulary = told["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(JobError, match=r"GTJ0108 the teacher is of another vocabulary .* '[ab]' is token [0-9]+ of one"):
        same_vocabulary(found("other"), read(found("one")))
    with pytest.raises(JobError, match=r"GTJ0108 .* it has 259 tokens, the student's tokenizer 257"):
        same_vocabulary(found("one"), ByteTokenizer())
