"""GRPO's losses against TRL's numbers; groups, shares and rewards by hand; and that it raises a reward."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.objectives.test_language_loss import bigram
from trainjobs.api.alignment import Grpo
from trainjobs.api.errors import JobError
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
    ours = ((token_BL * mask).sum(dim=1) * shares(torch.tensor(COUNTS), settings, torch.ones(4, dtype=torch.bool))).mean()
    assert ours.item() == pytest.approx(TRL[loss, beta], rel=1e-6)
    assert clipped.any()


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([1.0, 3.0, 5.0, 5.0])
    of_group, flat = advantages(rewards, Grpo(generations=2))
    assert of_group.tolist() == pytest.approx([-1 / (2**0.5 + 1e-4), 1 / (2**0.5 + 1e-4), 0, 0])
    assert flat.item() == 0.5
    assert advantages(rewards, Grpo(generations=2, scale_rewards="none"))[0].tolist() == [-1, 1, 0, 0]
    assert advantages(rewards, Grpo(generations=2, scale_rewards="batch"))[0][1].item() == pytest.approx(1 / (rewards.std().item() + 1e-4))


NONE = float("nan")


def test_rewards_that_are_missing_are_in_no_mean_and_no_deviation() -> None:
    rewards = torch.tensor([1.0, NONE, 3.0, 5.0, NONE, NONE, 7.0, 7.0, NONE, 2.0, NONE, NONE])
    for scale, deviations in (
        ("group", (2.0, 1.0, 1.0)),
        ("batch", (torch.tensor([1.0, 3, 5, 7, 7, 2]).std().item(),) * 3),
        ("none", None),
    ):
        found, share = advantages(rewards, Grpo(generations=4, scale_rewards=scale))  # type: ignore[arg-type]
        wanted = [-2.0, 0, 0, 2, *[0] * 8]
        assert found.tolist() == pytest.approx([value / (deviations[0] + 1e-4) if deviations else value for value in wanted])
        assert share.item() == pytest.approx(2 / 3)


def test_equal_rewards_are_flat_whatever_their_sum_rounds_to() -> None:
    found, share = advantages(torch.full((12,), 0.1), Grpo(generations=3))
    assert (found.abs().max().item(), share.item()) == (0.0, 1.0)


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


def beginning_with(text: str) -> Any:
    """A reward: the length of a completion, None of one that begins otherwise."""
    return lambda prompts, completions, **_: [len(one) if one.startswith(text) else None for one in completions]


def drawn_by_hand(columns: int = 12) -> dict[str, Tensor]:
    """Two groups of four completions; of the first the second begins with b, of the second all but one."""
    texts = ["aaa", "bb", "a", "aaaaa", "bbb", "b", "aa", "b"]
    tokens = torch.tensor([[END, ord("q"), *text.encode(), *[END] * (6 - len(text))] for text in texts])
    count = torch.tensor([len(text) + 1 for text in texts])
    at = torch.arange(8)[None]
    labels = torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=END).masked_fill((at < 1) | (at > count[:, None]), NOT_LEARNED)
    return {
        "tokens": tokens,
        "labels": labels,
        "count": count,
        "ended": torch.ones(8, dtype=torch.bool),
        "prompt_length": torch.full((8,), 2),
        "columns": torch.zeros(8, columns, dtype=torch.uint8),
        "step": torch.full((8,), 2),
        ROW: torch.arange(8),
    }


def finished(ours: Any, parts: int) -> dict[str, Tensor]:
    """Rows by hand, of so many ranks, which tell each other what they have."""
    rows, every = drawn_by_hand(), list[Tensor]()

    def told(value: Tensor) -> Tensor:
        every.append(value)
        return value

    whole = {**rows, **ours.finish(rows, told)}
    if parts == 1:
        return whole
    found = []
    for mine in torch.arange(8).chunk(parts):
        heard = iter(every)
        part = {name: value[mine] for name, value in rows.items()}
        found.append({**part, **ours.finish(part, lambda value, heard=heard: next(heard))})  # type: ignore[misc]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize("loss", ["dapo", "dr_grpo", "grpo"])
def test_completions_of_which_all_functions_abstain_teach_nothing(loss: Any) -> None:
    """However the batch is cut, the loss is that of the completions that have a reward, as if there were no others."""
    settings = Grpo(generations=4, loss=loss, max_completion=6)
    ours = GrpoObjective(bigram(), None, ByteTokenizer(), 8, settings, Rewards((("length", 1.0, beginning_with("a")),), 60))
    rows = drawn_by_hand()
    logs = ours.model(input_ids=rows["tokens"]).logits.log_softmax(-1).gather(2, rows["labels"].clamp(min=0)[..., None])[..., 0]
    told = [0, 2, 3, 6]  # of the second group one alone, whose advantage is 0
    worth = torch.tensor([3.0, 1.0, 5.0])
    sums = [advantage * (logs[row] - logs[row].detach()).exp()[rows["labels"][row] != NOT_LEARNED].sum()
            for row, advantage in zip(told, [*(worth - worth.mean()) / (worth.std() + 1e-4), 0.0], strict=True)]  # fmt: skip
    counts = rows["count"][told]
    each = {"dapo": counts.sum() / 4, "dr_grpo": torch.tensor(6.0), "grpo": counts}[loss]
    wanted = -(torch.stack([torch.as_tensor(one) for one in sums]) / each).mean()
    (gradient,) = torch.autograd.grad(wanted, ours.model.table)  # type: ignore[arg-type]
    for parts in (1, 2, 4):
        rows = finished(ours, parts)
        found = []
        for mine in torch.arange(8).chunk(parts):
            batch = Batch({name: value[mine] for name, value in rows.items()}, Noise.of(0, 0, "train", mine), len(mine))
            found.append(ours.loss(batch))
        mean = sum(loss_ for loss_, _ in found) / parts  # type: ignore[arg-type]
        torch.testing.assert_close(mean, wanted)
        torch.testing.assert_close(torch.autograd.grad(mean, ours.model.table)[0], gradient)  # type: ignore[arg-type]
        metrics = {name: sum(float(one[name]) for _, one in found) / parts for name in ("reward", "reward/abstained", "reward/deviation")}
        given = torch.tensor([3.0, 1.0, 5.0, 2.0])
        assert metrics == pytest.approx({"reward": 2.75, "reward/abstained": 0.5, "reward/deviation": given.std().item()})


def test_rewards_that_abstain_of_everything_are_an_error_that_says_so() -> None:
    settings = Grpo(generations=4, dynamic_sampling=2)
    ours = GrpoObjective(bigram(), None, ByteTokenizer(), 8, settings, Rewards((("length", 1.0, beginning_with("c")),), 60))
    rows = drawn_by_hand()
    more, chosen = ours.judge(rows, lambda value: value)
    assert not chosen.any()
    with pytest.raises(JobError, match=r"failed at step 3.*abstained of all 8 completions of the step") as failed:
        ours.finish({**rows, **more, "chosen": chosen}, lambda value: value)
    assert failed.value.code == "GTJ0221"


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
def test_tokens_are_drawn_at_the_temperature() -> None:
    """Near 0 the likeliest token is drawn, whatever the number."""
    from tests.objectives.test_language_answers import network

    model = network("gpt2").eval()
    settings = Grpo(generations=4, max_completion=3, temperature=1e-3)
    rows = rolled(GrpoObjective(model, None, ByteTokenizer(), 48, settings, Rewards((("letters", 1.0, letters),), 60)), 8, 8, 0)
    with torch.no_grad():
        likeliest = model(input_ids=rows["tokens"]).logits.argmax(dim=2)
    learned = rows["labels"] != NOT_LEARNED
    assert torch.equal(rows["labels"][learned], likeliest[learned])


@pytest.mark.slow
def test_completions_that_were_cut_off_are_not_learned_from_where_asked() -> None:
    from tests.objectives.test_language_answers import network

    settings = Grpo(generations=4, max_completion=4, mask_truncated=True)
    rows = rolled(
        GrpoObjective(network("gpt2").eval(), None, ByteTokenizer(), 48, settings, Rewards((("letters", 1.0, letters),), 60)), 8, 8, 0
    )
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
