"""GRPO's losses against TRL's numbers; groups, shares and rewards by hand; and that it raises a reward."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from trainjobs.api.alignment import Grpo
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.noise import Noise
from trainjobs.objectives.language.completing import joined
from trainjobs.objectives.language.grpo import GrpoObjective, advantages, shares, token_losses
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.phase import ROW, At, Batch

END = ByteTokenizer().end

# TRL 1.16.0's GRPOTrainer._compute_loss with a stand-in for `self`, float64: four completions of 5, 2, 3 and 4 tokens, epsilon 0.2,
# epsilon_high 0.28, max_completion_length 5, use_bias_correction_kl False; by loss_type and beta.
LOGS = [
    [-0.12, -0.45, -0.47, -0.35, -1.11],
    [-0.22, -0.92, -1.42, -1.16, -0.99],
    [-1.02, -0.66, -1.44, -0.77, -0.18],
    [-0.23, -1.28, -0.39, -1.02, -1.42],
]
OLD = [
    [0.13, -0.15, -0.23, -0.13, -0.91],
    [-0.43, -1.12, -1.13, -0.97, -1.03],
    [-1.07, -0.7, -1.28, -0.52, 0.1],
    [-0.43, -1.01, -0.51, -1.05, -1.55],
]
REFERENCE = [
    [-0.37, -0.65, -0.59, -0.4, -1.19],
    [-0.39, -0.68, -1.56, -1.27, -1.15],
    [-0.89, -0.85, -1.5, -0.5, 0.01],
    [-0.41, -1.05, -0.39, -0.71, -1.74],
]
COUNTS, ADVANTAGES = [5, 2, 3, 4], [1.3, -0.7, 0.2, -0.8]
TRL = {
    ("grpo", 0.0): 0.11942958408006377,
    ("grpo", 0.04): 0.12010682791035018,
    ("dapo", 0.0): -0.045182184634915246,
    ("dapo", 0.04): -0.044529158643495693,
    ("dr_grpo", 0.0): -0.03162752924444067,
    ("dr_grpo", 0.04): -0.031170411050446982,
}


@pytest.mark.parametrize(("loss", "beta"), TRL)
def test_losses_are_trls(loss: Any, beta: float) -> None:
    settings = Grpo(loss=loss, beta=beta, epsilon_high=0.28, max_completion=5)
    logs, old, reference = (torch.tensor(rows, dtype=torch.float64) for rows in (LOGS, OLD, REFERENCE))
    mask = torch.arange(5)[None] < torch.tensor(COUNTS)[:, None]
    token_BL, clipped, _ = token_losses(logs, old, reference, torch.tensor(ADVANTAGES, dtype=torch.float64), settings)
    ours = ((token_BL * mask).sum(dim=1) * shares(torch.tensor(COUNTS), settings)).mean()
    assert ours.item() == pytest.approx(TRL[loss, beta], rel=1e-6)
    assert clipped.any()


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([1.0, 3.0, 5.0, 5.0])
    of_group, flat = advantages(rewards, Grpo(generations=2))
    assert of_group.tolist() == pytest.approx([-1 / (2**0.5 + 1e-4), 1 / (2**0.5 + 1e-4), 0, 0])
    assert flat.item() == 0.5
    assert advantages(rewards, Grpo(generations=2, scale_rewards="none"))[0].tolist() == [-1, 1, 0, 0]
    assert advantages(rewards, Grpo(generations=2, scale_rewards="batch"))[0][1].item() == pytest.approx(1 / (rewards.std().item() + 1e-4))


def test_completions_lie_right_behind_their_prompts() -> None:
    prompt, length = torch.tensor([[1, 2, 3], [4, END, END]]), torch.tensor([3, 1])
    completion, count = torch.tensor([[7, END], [8, 9]]), torch.tensor([2, 2])
    tokens, labels = joined(prompt, length, completion, count, END)
    n = NOT_LEARNED
    assert tokens.tolist() == [[1, 2, 3, 7, END], [4, 8, 9, END, END]]
    assert labels.tolist() == [[n, n, 7, END, n], [8, 9, n, n, n]]


def letters(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """The share of four characters that are letters: a network that knows nothing makes 52 of its 257 tokens."""
    return [sum(one.isascii() and one.isalpha() for one in text) / 4 for text in completions]


def prompts(count: int, group: int) -> dict[str, Tensor]:
    rows = [[END, ord("q"), 48 + number // group] for number in range(count)]
    columns = [list(json.dumps({"n": number // group}).encode()) for number in range(count)]
    return {
        "prompt": torch.tensor(rows),
        "prompt_length": torch.full((count,), 3),
        "columns": torch.tensor([row + [0] * (12 - len(row)) for row in columns], dtype=torch.uint8),
    }


def rolled(ours: GrpoObjective, size: int, micro: int, step: int, seed: int = 0) -> dict[str, Tensor]:
    """A rollout's rows, made in micro-batches, of one process."""
    data = prompts(size, ours.settings.generations)
    made = []
    with torch.no_grad():
        for start in range(0, size, micro):
            part = {name: rows[start : start + micro] for name, rows in data.items()}
            noise = Noise.of(seed, step, "rollout", torch.arange(start, start + micro))
            made.append(ours.make(Batch(part, noise, micro, At(step))))
        rows = {name: torch.cat([one[name] for one in made]) for name in made[0]}
        rows[ROW] = torch.arange(size)
        return {**rows, **ours.finish(rows, lambda value: value)}


@pytest.mark.slow
def test_a_rollout_is_the_same_however_it_is_cut_and_begins_at_a_ratio_of_one() -> None:
    from tests.objectives.test_language_answers import network

    model = network("gpt2").eval()
    settings = Grpo(generations=4, max_completion=8, epochs=2, temperature=0.7)
    ours = GrpoObjective(model, None, ByteTokenizer(), 48, settings, Rewards((("letters", 1.0, letters),), 60))
    whole, cut = rolled(ours, 8, 8, 0), rolled(ours, 8, 2, 0)
    assert torch.equal(whole["tokens"], cut["tokens"])
    torch.testing.assert_close(whole["advantage"], cut["advantage"])
    batch = Batch(whole, Noise.of(0, 0, "train", torch.arange(8)), 8)
    loss, metrics = ours.loss(batch)
    count = (whole["labels"] != NOT_LEARNED).sum(dim=1)
    assert loss.item() == pytest.approx(-(whole["advantage"] * count).sum().item() / count.sum().item(), rel=1e-3, abs=1e-5)
    assert metrics["clipped"].item() == 0
    assert ours.phases[0].repeat == 2


@pytest.mark.slow
def test_completions_that_were_cut_off_are_not_learned_from_where_asked() -> None:
    from tests.objectives.test_language_answers import network

    settings = Grpo(generations=4, max_completion=4, mask_truncated=True)
    rows = rolled(GrpoObjective(network("gpt2").eval(), None, ByteTokenizer(), 48, settings, Rewards((), 60)), 8, 8, 0)
    assert not rows["ended"].all()
    assert ((rows["labels"] != NOT_LEARNED).any(dim=1) == rows["ended"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_raises_a_reward_and_stays_near_its_reference(seed: int) -> None:
    from trainjobs.api.language import Transformer
    from trainjobs.models.transformers import causal_language_model

    torch.manual_seed(seed)
    network = Transformer.model_validate({"layers": 1, "hidden": 16, "heads": 2, "contextLength": 16})
    model: Any = causal_language_model(network, 257, END)
    reference = copy.deepcopy(model).eval()
    rewards = Rewards((("letters", 1.0, letters),), 60)
    ours = GrpoObjective(model, reference, ByteTokenizer(), 16, Grpo(max_completion=4, beta=0.01), rewards)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    means, divergence = [], 0.0
    for step in range(40):
        rows = rolled(ours, 32, 32, step, seed)
        means.append(rows["reward"].mean().item())
        optimizer.zero_grad()
        loss, metrics = ours.loss(Batch(rows, Noise.of(seed, step, "train", torch.arange(32)), 32))
        loss.backward()
        optimizer.step()
        divergence = metrics["kl/reference"].item()
    assert means[0] < 0.4
    assert sum(means[-5:]) / 5 > 0.9, means[::5]
    assert 0 < divergence < 4, divergence  # of a token, as PPO's
