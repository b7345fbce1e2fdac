"""Losses of preferences against TRL's numbers, the reference that holds, the place at which a reward is read."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.objectives.test_language_loss import bigram
from trainjobs.api.alignment import Dpo, RewardModel
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.noise import Noise
from trainjobs.objectives.language.completing import joined
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.language.preference import DpoObjective, RewardObjective, Scored, preferred
from trainjobs.objectives.phase import Batch

END = ByteTokenizer().end

# Of three pairs: log p - log p_ref, summed over the answer, chosen and rejected, and how many tokens each answer has. The losses are
# TRL 1.16.0's, of DPOTrainer._compute_loss called with a stand-in for `self` (beta 0.2, label_smoothing 0.1) in float64.
RATIOS = [[-3.82, 0.87], [1.56, 3.69], [-0.07, -0.99]]
COUNTS = [[4, 2], [2, 5], [3, 3]]
TRL = {"sigmoid": 0.9341176509675598, "ipo": 8.661525037037036, "hinge": 1.3933333333333333, "robust": 0.9832843176342264}


@pytest.mark.parametrize("loss", TRL)
def test_losses_are_trls(loss: Any) -> None:
    settings = Dpo(beta=0.2, loss=loss, label_smoothing=0.1 if loss == "robust" else 0.0)
    ours = preferred(torch.tensor(RATIOS, dtype=torch.float64), torch.tensor(COUNTS), settings).mean()
    assert ours.item() == pytest.approx(TRL[loss], rel=1e-12)


def test_smoothing_mixes_in_the_other_way_round() -> None:
    ratios, counts = torch.tensor(RATIOS, dtype=torch.float64), torch.tensor(COUNTS)
    one, other = preferred(ratios, counts, Dpo()), preferred(ratios.flip(1), counts, Dpo())
    torch.testing.assert_close(preferred(ratios, counts, Dpo(label_smoothing=0.2)), 0.8 * one + 0.2 * other)


def pairs() -> Batch:
    """Two pairs with a prompt of two tokens; the answers are of 1 to 3."""
    rows = [[[1, 2, 3, END], [1, 2, 4, 5, END]], [[1, 2, 6, 7, END], [1, 2, 8, END]]]
    tokens = torch.tensor([[side + [END] * (5 - len(side)) for side in row] for row in rows])
    labels = torch.tensor([[[NOT_LEARNED, *side[2:], *[NOT_LEARNED] * (6 - len(side))] for side in row] for row in rows])
    lengths = torch.tensor([[len(side) for side in row] for row in rows])
    return Batch({"tokens": tokens, "labels": labels, "lengths": lengths}, Noise.of(0, 0, "train", torch.arange(2)), 2)


def test_dpo_sums_over_the_answers_tokens_and_tells_implicit_rewards() -> None:
    model, reference = bigram(), bigram()
    with torch.no_grad():
        model.table.add_(torch.randn(257, 257, generator=torch.Generator().manual_seed(3)) * 0.1)
    loss, metrics = DpoObjective(model, reference, ByteTokenizer(), 8, Dpo()).loss(pairs())
    rewards = []
    for row in ([3, END], [4, 5, END]), ([6, 7, END], [8, END]):
        for answer in row:
            steps = list(zip([2, *answer[:-1]], answer, strict=True))
            ours, theirs = (sum(one.table[a].double().log_softmax(0)[b] for a, b in steps) for one in (model, reference))
            rewards.append(0.1 * float((ours - theirs).detach()))
    wanted = -torch.nn.functional.logsigmoid(torch.tensor([rewards[0] - rewards[1], rewards[2] - rewards[3]])).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert metrics["rewards/chosen"].item() == pytest.approx((rewards[0] + rewards[2]) / 2, abs=1e-6)
    assert metrics["rewards/margin"].item() == pytest.approx((rewards[0] - rewards[1] + rewards[2] - rewards[3]) / 2, abs=1e-6)
    assert metrics["rewards/accuracy"].item() == (int(rewards[0] > rewards[1]) + int(rewards[2] > rewards[3])) / 2
    total, count = DpoObjective(model, reference, ByteTokenizer(), 8, Dpo()).heldout(pairs())["loss"]
    assert count.item() == 2
    assert total.item() / 2 == pytest.approx(loss.item(), rel=1e-6)


def test_at_the_beginning_the_loss_is_log_two_and_only_the_model_learns() -> None:
    model, reference = bigram(), bigram().requires_grad_(False)
    loss, _ = DpoObjective(model, reference, ByteTokenizer(), 8, Dpo()).loss(pairs())
    assert loss.item() == pytest.approx(0.6931472, rel=1e-6)
    loss.backward()
    assert model.table.grad is not None
    assert model.table.grad.any()
    assert reference.table.grad is None


def test_without_a_copy_the_reference_is_the_network_without_its_adapters() -> None:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.more = bigram(), nn.Parameter(torch.randn(257, 257))
            self.on = True

        @contextmanager
        def disable_adapter(self) -> Any:
            self.on = False
            yield
            self.on = True

        def forward(self, input_ids: Tensor) -> Any:
            logits = self.inner(input_ids).logits
            return SimpleNamespace(logits=logits + self.more[input_ids] if self.on else logits)

    model = Adapted()
    ours, _ = DpoObjective(model, None, ByteTokenizer(), 8, Dpo()).loss(pairs())
    wanted, _ = DpoObjective(model, model.inner, ByteTokenizer(), 8, Dpo()).loss(pairs())
    assert ours.item() == wanted.item()
    assert ours.item() != pytest.approx(0.6931472, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_reward_is_read_at_the_last_token_by_length_and_its_loss_is_bradleys_and_terrys(architecture: str) -> None:
    from tests.objectives.test_language_answers import network

    model = Scored(network(architecture))
    batch = pairs()
    with torch.no_grad():
        together = model(input_ids=batch.data["tokens"].flatten(0, 1), last=batch.data["lengths"].flatten())
        alone = [
            model(input_ids=row[None, :length], last=torch.tensor([length]))
            for row, length in zip(batch.data["tokens"].flatten(0, 1), batch.data["lengths"].flatten().tolist(), strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-5)
    r = together.double().view(2, 2)
    loss, metrics = RewardObjective(model, RewardModel(margin=0.5, centering=0.01)).loss(batch)
    wanted = (-torch.nn.functional.logsigmoid(r[:, 0] - r[:, 1] - 0.5) + 0.01 * (r[:, 0] + r[:, 1]) ** 2).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert metrics["rewards/margin"].item() == pytest.approx((r[:, 0] - r[:, 1]).mean().item(), rel=1e-4)
    # The weights go into transformers' own network by their names.
    from transformers import AutoModelForSequenceClassification

    config = type(model.config)(**{**model.config.to_dict(), "num_labels": 1})
    config._attn_implementation = "sdpa"
    theirs = AutoModelForSequenceClassification.from_config(config)
    theirs.load_state_dict(model.state_dict(), strict=True)
    row, length = batch.data["tokens"][0, 0], int(batch.data["lengths"][0, 0])
    with torch.no_grad():
        assert theirs.eval()(input_ids=row[None, :length]).logits.item() == pytest.approx(together[0].item(), rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_raises_the_reward_that_preferences_were_judged_by_and_stays_near_its_reference(seed: int) -> None:
    """Of eight completions that the reference draws to a prompt, the one with the most letters is better than that with the fewest."""
    from tests.objectives.test_language_grpo import letters
    from trainjobs.api.language import Transformer
    from trainjobs.models.transformers import causal_language_model
    from trainjobs.objectives.language.tokens import log_probabilities

    torch.manual_seed(seed)
    network = Transformer.model_validate({"layers": 1, "hidden": 16, "heads": 2, "contextLength": 16})
    model: Any = causal_language_model(network, 257, END)
    reference = copy.deepcopy(model).eval()
    tokenizer = ByteTokenizer()

    def drawn(network: Any, count: int, key: int) -> tuple[Tensor, Tensor, list[float]]:
        """(tokens and labels of the prompt and what is drawn behind it, rewards)"""
        prompt, length = torch.tensor([[END, ord("q")]]).expand(count, 2), torch.full((count,), 2)
        uniform = torch.rand(count, 4, generator=torch.Generator().manual_seed(key))
        with torch.no_grad():
            completion, taken = complete(network, prompt, length, uniform, (END,))
        texts = [tokenizer.decode(row[:n].tolist()) for row, n in zip(completion, taken, strict=True)]
        return *joined(prompt, length, completion, taken, END), letters([], texts)

    steps, size = 60, 64
    tokens, labels, rewards = drawn(reference, 8 * steps * size, seed)
    groups = torch.tensor(rewards).view(-1, 8)
    rows = torch.stack([groups.argmax(1), groups.argmin(1)], dim=1) + torch.arange(0, len(tokens), 8)[:, None]
    ours = DpoObjective(model, reference, tokenizer, 16, Dpo())
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(steps):  # no pair twice
        chosen = rows[size * step : size * (step + 1)]
        optimizer.zero_grad()
        batch = Batch({"tokens": tokens[chosen], "labels": labels[chosen]}, Noise.of(seed, step, "train", torch.arange(size)), size)
        ours.loss(batch)[0].backward()
        optimizer.step()
    tokens, labels, after = drawn(model.eval(), 256, 100 + seed)
    with torch.no_grad():
        logs, before = (log_probabilities(one(input_ids=tokens).logits, labels) for one in (model, reference))
    divergence = float((logs - before).sum() / (labels != NOT_LEARNED).sum())
    assert sum(rewards) / len(rewards) < 0.4
    assert sum(after) / len(after) > 0.9, sum(after) / len(after)
    assert 0 < divergence < 4, divergence  # of a token; 1.6 nats are the least that telling 52 of 257 apart takes


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_base_s_dropout_is_off_where_probabilities_of_two_passes_are_compared(method: str, tmp_path: Path) -> None:
    import json

    from tests.models.bases import base
    from trainjobs.api.job import Spec
    from trainjobs.data import open_source
    from trainjobs.objectives.build import build

    config = base(tmp_path / "base") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"resid_pdrop": 0.1, "attn_pdrop": 0.1}))
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b", "chosen": "b", "rejected": "c"}) + "\n")
    asked = {"base": {"source": f"file://{tmp_path / 'base'}"}, "network": {"contextLength": 32}, "method": method}
    data = {"source": f"file://{tmp_path / 'pairs.jsonl'}", "holdout": 0}
    spec = Spec.model_validate({"language": asked, "data": data, "training": {"steps": 1}})
    found = build(spec, open_source(spec, tmp_path / "cache").info).modules["model"]
    assert any(module.p > 0 for module in found.modules() if isinstance(module, torch.nn.Dropout)) == (method == "sft")
