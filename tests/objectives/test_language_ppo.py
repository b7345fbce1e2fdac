"""PPO by hand: advantages of six tokens, where a reward stands, whitening over ranks; the value head; that it raises a reward."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.objectives.test_language_grpo import END, beginning_with, drawn_by_hand, letters, prompts
from trainjobs.api.alignment import Ppo
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.noise import Noise
from trainjobs.objectives.language.ppo import (
    PpoObjective,
    estimates,
    generalised_advantages,
    policy_losses,
    token_rewards,
    value_losses,
    whitened,
)
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.language.tokens import log_probabilities
from trainjobs.objectives.phase import ROW, At, Batch

# Six tokens behind a prompt of one, gamma 0.9, lambda 0.5. By hand, from the last one back:
#   d_t = r_t + 0.9 V_{t+1} - V_t     and     A_t = d_t + 0.45 A_{t+1}
REWARD = [0.0, -0.1, 0.2, 0.0, -0.3, 1.0]
VALUE = [0.5, 0.4, 0.6, 0.1, 0.2, 0.7]
DELTA = [-0.14, 0.04, -0.31, 0.08, 0.13, 0.3]


def by_hand() -> list[float]:
    found, after = [], 0.0
    for delta in reversed(DELTA):
        after = delta + 0.45 * after
        found.append(after)
    return found[::-1]


def test_advantages_of_six_tokens_are_those_by_hand() -> None:
    learned = torch.tensor([[False, True, True, True, True, True, True, False]])
    reward, value = (torch.tensor([[9.0, *row, 9.0]], dtype=torch.float64) * learned for row in (REWARD, VALUE))
    advantage, gain = generalised_advantages(reward, value, learned, 0.9, 0.5)
    # 0.3; 0.13 + 0.45 * 0.3 = 0.265; 0.08 + 0.45 * 0.265 = 0.19925; -0.31 + 0.45 * 0.19925 = -0.2203375; ...
    wanted = [-0.16661834375, -0.059151875, -0.2203375, 0.19925, 0.265, 0.3]
    assert advantage[0].tolist() == pytest.approx([0.0, *wanted, 0.0], abs=1e-12)
    assert wanted == pytest.approx(by_hand(), abs=1e-9)
    assert gain[0].tolist() == pytest.approx([0.0, *(a + v for a, v in zip(wanted, VALUE, strict=True)), 0.0], abs=1e-12)


def test_lambda_of_one_is_the_return_and_of_zero_one_step() -> None:
    learned = torch.ones(1, 6, dtype=torch.bool)
    reward, value = (torch.tensor([row], dtype=torch.float64) for row in (REWARD, VALUE))
    whole, gain = generalised_advantages(reward, value, learned, 1.0, 1.0)
    assert gain[0].tolist() == pytest.approx([sum(REWARD[t:]) for t in range(6)])
    assert generalised_advantages(reward, value, learned, 0.9, 0.0)[0][0].tolist() == pytest.approx(DELTA)
    torch.testing.assert_close(whole, gain - value)


def test_a_reward_stands_at_the_end_or_at_the_last_token_and_costs_where_it_was_cut_off() -> None:
    learned = torch.tensor([[True, True, False], [False, True, True]])
    kl = torch.tensor([[0.5, -0.25, 7.0], [7.0, 1.0, 2.0]])
    found = token_rewards(
        torch.tensor([3.0, 5.0]), torch.tensor([True, False]), kl, learned, Ppo(kl_coefficient=0.1, missing_eos_penalty=2)
    )
    torch.testing.assert_close(found, torch.tensor([[-0.05, 3.025, 0.0], [0.0, -0.1, 2.8]]))


def test_advantages_are_whitened_over_all_ranks() -> None:
    generator = torch.Generator().manual_seed(0)
    advantage = torch.randn(6, 5, generator=generator) * 3 + 1
    learned = torch.rand(6, 5, generator=generator) < 0.6
    whole = whitened(advantage, learned, lambda rows: rows)
    chosen = advantage[learned]
    torch.testing.assert_close(whole[learned], (chosen - chosen.mean()) / (chosen.var() + 1e-8).sqrt())
    every = {"sums": [learned.sum(1), (advantage.double() * learned).sum(1)]}
    mean = every["sums"][1].sum() / every["sums"][0].sum()
    every["sums"].append((((advantage.double() - mean) * learned) ** 2).sum(1))
    asked = iter(every["sums"])
    half = whitened(advantage[:3], learned[:3], lambda rows: next(asked))  # what the other rank adds
    assert torch.equal(half, whole[:3])
    assert (whole[~learned] == 0).all()


def test_completions_of_which_all_functions_abstain_teach_nothing() -> None:
    """However the batch is cut, the policy's loss is that of the completions that have a reward, as if there were no others."""
    table = torch.nn.Embedding(257, 257)

    class Valued(torch.nn.Module):
        def forward(self, input_ids: Tensor, valued: bool = False) -> Any:
            return Said(logits=table(input_ids), values=table(input_ids)[..., 0].detach() * 0.1)

    ours = PpoObjective(Valued(), None, ByteTokenizer(), 8, Ppo(kl_coefficient=0.0), Rewards((("length", 1.0, beginning_with("a")),), 60))
    given = drawn_by_hand()
    with torch.no_grad():
        told = torch.tensor([0, 2, 3, 6])
        at_all = {"old": log_probabilities(table(given["tokens"]), given["labels"]), "value": table(given["tokens"])[..., 0] * 0.1}
    rows = {**given, **at_all}
    rows["value"] = rows["value"] * (rows["labels"] != NOT_LEARNED)
    wanted = ours.finish({name: value[told] if name != ROW else torch.arange(4) for name, value in rows.items()}, lambda value: value)
    found = ours.finish(rows, lambda value: value)
    learned = found["labels"] != NOT_LEARNED
    assert learned.any(dim=1).nonzero()[:, 0].tolist() == told.tolist()
    torch.testing.assert_close(found["advantage"][told], wanted["advantage"])
    assert (found["advantage"][~learned] == 0).all()
    assert found["share"][0].item() == pytest.approx(2 * wanted["share"][0].item())  # of twice as many rows

    def loss_of(rows: dict[str, Tensor], parts: int) -> Tensor:
        return torch.stack([
            ours.loss(Batch({name: value[mine] for name, value in rows.items()}, Noise.of(0, 0, "train", mine), len(mine)))[0]
            for mine in torch.arange(len(rows["tokens"])).chunk(parts)
        ]).mean()  # fmt: skip

    (gradient,) = torch.autograd.grad(loss_of({name: value[told] for name, value in rows.items()} | wanted, 1), table.weight)
    for parts in (1, 4):
        torch.testing.assert_close(torch.autograd.grad(loss_of(rows | found, parts), table.weight)[0], gradient)


class Said(dict[str, Tensor]):
    """What a network returns."""

    @property
    def logits(self) -> Tensor:
        return self["logits"]


def test_losses_and_estimates_by_hand() -> None:
    logs, old = torch.tensor([[0.0, -1.0]]), torch.tensor([[math.log(0.5), -1.0]])
    loss, clipped = policy_losses(logs, old, torch.tensor([[1.0, -2.0]]), 0.2)  # ratios 2 and 1
    torch.testing.assert_close(loss, torch.tensor([[-1.2, 2.0]]))
    assert clipped.tolist() == [[True, False]]
    assert policy_losses(logs, old, torch.tensor([[-1.0, 0.0]]), 0.2)[0][0, 0].item() == pytest.approx(2.0)  # the worse of both
    loss, held = value_losses(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 0.9]]), torch.tensor([[2.0, 0.0]]), 0.2)
    torch.testing.assert_close(loss, torch.tensor([[0.5 * 1.8**2, 0.5]]))
    assert held.tolist() == [[True, False]]
    k1, k3 = estimates(torch.tensor([[-1.0]]), torch.tensor([[-0.5]]))
    assert (k1.item(), k3.item()) == pytest.approx((-0.5, math.exp(0.5) - 1.5))


def rolled(ours: PpoObjective, size: int, micro: int, step: int, seed: int = 0) -> dict[str, Tensor]:
    """A rollout's rows, made in micro-batches, of one process."""
    data, made = prompts(size, 1), []
    with torch.no_grad():
        for start in range(0, size, micro):
            part = {name: rows[start : start + micro] for name, rows in data.items()}
            made.append(ours.make(Batch(part, Noise.of(seed, step, "rollout", torch.arange(start, start + micro)), micro, At(step))))
        rows = {name: torch.cat([one[name] for one in made]) for name in made[0]}
        rows[ROW] = torch.arange(size)
        return {**rows, **ours.finish(rows, lambda value: value)}


def tiny(seed: int, layers: int = 1) -> Any:
    from trainjobs.api.language import Transformer
    from trainjobs.models.transformers import causal_language_model
    from trainjobs.objectives.language.headed import Valued

    torch.manual_seed(seed)
    network = Transformer.model_validate({"layers": layers, "hidden": 16, "heads": 2, "contextLength": 16})
    return Valued(causal_language_model(network, 257, END))


@pytest.mark.slow
def test_a_valued_network_is_the_causal_one_with_values_of_0_at_first() -> None:
    model = tiny(0)
    causal = model.causal
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in causal.named_parameters()} | set(model.begins_anew)
    tokens = torch.tensor([[1, 2, 3]])
    output = model(input_ids=tokens, valued=True)
    assert torch.equal(output.logits, causal(input_ids=tokens).logits)
    assert output["values"].abs().max() == 0
    with torch.no_grad():
        model.value.weight.normal_()
    hidden = causal(input_ids=tokens, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(model(input_ids=tokens, valued=True)["values"], (hidden @ model.value.weight.T)[..., 0])


@pytest.mark.slow
def test_the_first_pass_has_ratios_of_one_and_a_divergence_of_0() -> None:
    model = tiny(0).eval()
    ours = PpoObjective(
        model, model, ByteTokenizer(), 16, Ppo(max_completion=4, temperature=0.7), Rewards((("letters", 1.0, letters),), 60)
    )
    whole, cut = rolled(ours, 8, 8, 0), rolled(ours, 8, 2, 0)
    assert torch.equal(whole["tokens"], cut["tokens"])
    torch.testing.assert_close(whole["advantage"], cut["advantage"])
    loss, metrics = ours.loss(Batch(whole, Noise.of(0, 0, "train", torch.arange(8)), 8))
    assert metrics["loss/policy"].item() == pytest.approx(0.0, abs=1e-6)  # the mean of whitened advantages
    assert (metrics["clipped"].item(), metrics["kl/k1"].item(), metrics["kl/k3"].item()) == (0, 0, 0)
    learned = whole["labels"] != NOT_LEARNED
    value = 0.5 * (whole["return"][learned] ** 2).mean().item()  # of values of 0
    assert loss.item() == pytest.approx(0.1 * value, rel=1e-4)
    assert 5 < metrics["entropy"].item() <= math.log(257) + 1e-5
    assert ours.phases[0].repeat == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_raises_a_reward_and_stays_near_its_reference(seed: int) -> None:
    import copy

    model = tiny(seed)
    reference = copy.deepcopy(model).eval()
    rewards = Rewards((("letters", 1.0, letters),), 60)
    ours = PpoObjective(model, reference, ByteTokenizer(), 16, Ppo(max_completion=4, kl_coefficient=0.02), rewards)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    means, divergence = [], 0.0
    for step in range(40):
        rows = rolled(ours, 32, 32, step, seed)
        means.append(rows["reward"].mean().item())
        for _ in range(ours.settings.epochs):
            optimizer.zero_grad()
            loss, metrics = ours.loss(Batch(rows, Noise.of(seed, step, "train", torch.arange(32)), 32))
            loss.backward()
            optimizer.step()
        divergence = metrics["kl/k1"].item()
    assert means[0] < 0.4
    assert sum(means[-5:]) / 5 > 0.9, means[::10]
    assert 0 < divergence < 4, divergence  # of a token; 1.6 nats are the least that telling 52 of 257 apart takes
