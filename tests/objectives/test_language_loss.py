"""Language loss against transformers' own, sampling against the distribution it samples from."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.language import Transformer
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.models.generation import draw
from trainjobs.noise import Noise
from trainjobs.objectives.language.causal import LanguageObjective
from trainjobs.objectives.phase import Batch

END = ByteTokenizer().end


class Bigram(nn.Module):
    """Logits that depend on the last token alone; speaks transformers' protocol, with a cache that counts."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids: Tensor, past_key_values: int | None = None, use_cache: bool = False) -> Any:
        seen = (past_key_values or 0) + input_ids.shape[1]
        return SimpleNamespace(logits=self.table[input_ids], past_key_values=seen)


def bigram() -> Bigram:
    torch.manual_seed(0)
    return Bigram(torch.randn(257, 257))


def tokens(count: int = 4, length: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(1)
    data = torch.randint(0, 257, (count, length), generator=generator)
    return Batch({"tokens": data}, Noise.of(0, 0, "train", torch.arange(count)), count)


def test_loss_is_the_mean_of_minus_log_probability() -> None:
    model, b = bigram(), tokens()
    loss, metrics = LanguageObjective(model, ByteTokenizer(), 8).phases[0].loss(b)
    rows = b.data["tokens"].tolist()
    logs = [model.table[one].double().log_softmax(0)[next_one].item() for row in rows for one, next_one in pairwise(row)]
    assert len(logs) == 32
    assert loss.item() == pytest.approx(-sum(logs) / 32, rel=1e-6)
    assert metrics["loss"].item() == loss.item()
    assert not metrics["loss"].requires_grad


def test_perplexity_of_a_uniform_model_is_the_vocabulary() -> None:
    total, count = LanguageObjective(Bigram(torch.zeros(257, 257)), ByteTokenizer(), 8).heldout(tokens())["loss"]
    assert count.item() == tokens().data["tokens"][:, 1:].numel()
    assert math.exp(total.item() / count.item()) == pytest.approx(257.0, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_loss_is_that_of_transformers(architecture: str) -> None:
    from trainjobs.models.transformers import causal_language_model

    torch.manual_seed(0)
    network = Transformer.model_validate({"architecture": architecture, "layers": 2, "hidden": 32, "heads": 4, "contextLength": 16})
    model: Any = causal_language_model(network, 257, END)
    b = tokens(3, 17)
    ours = LanguageObjective(model, ByteTokenizer(), 16).cross_entropy(b)[0]
    data = b.data["tokens"]
    # transformers shifts labels by itself: the last label is of a token it is not asked to predict from.
    theirs = model(input_ids=data[:, :-1], labels=data[:, :-1], shift_labels=data[:, 1:].contiguous()).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    unshifted = model(input_ids=data[:, :-1], labels=data[:, :-1]).loss  # 15 of the 16 predictions
    assert unshifted.item() != pytest.approx(ours.item(), rel=1e-6)
    assert LanguageObjective(model, ByteTokenizer(), 15).cross_entropy(Batch({"tokens": data[:, :-1]}, b.noise, 3))[
        0
    ].item() == pytest.approx(unshifted.item(), rel=1e-6)


@pytest.mark.slow
def test_bf16_agrees_with_fp32_within_its_precision() -> None:
    from trainjobs.models.transformers import causal_language_model

    torch.manual_seed(0)
    model = causal_language_model(Transformer(layers=2, hidden=32, heads=4, context_length=16), 257, END)
    ours, b = LanguageObjective(model, ByteTokenizer(), 16), tokens(3, 17)
    exact = ours.cross_entropy(b)[0]
    for weights in (torch.float32, torch.bfloat16):
        model.to(weights)
        with torch.autocast("cpu", torch.bfloat16):
            loss = ours.cross_entropy(b)[0]
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.item(), rel=0.01)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, -30.0])
    u = Noise.of(0, 0, "s", torch.arange(100_000)).uniform("u", 1)
    counts = draw(logits.expand(100_000, 4), u).flatten().bincount(minlength=4) / 100_000
    torch.testing.assert_close(counts, logits.softmax(0), atol=5e-3, rtol=0)


def test_draws_invert_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.25, 0.0, 0.5, 0.25]).log().expand(5, 4)  # a token of probability 0 is never drawn
    u = torch.tensor([[0.0], [0.24], [0.25], [0.74], [0.999_999_9]])
    assert draw(logits, u).flatten().tolist() == [0, 0, 2, 2, 3]


def test_draws_reach_rare_tokens_of_a_large_vocabulary() -> None:
    assert draw(torch.zeros(1, 50_000), torch.tensor([[1.0 - 2.0**-24]])).item() == 49_999


def test_texts_start_after_the_end_of_text_token_and_stop_at_the_next() -> None:
    table = torch.full((257, 257), -1e9)
    for one, after in ((END, "a"), ("a", "b"), ("b", "c"), ("c", END)):
        table[one if isinstance(one, int) else ord(one), after if isinstance(after, int) else ord(after)] = 0.0
    samples = LanguageObjective(Bigram(table), ByteTokenizer(), 10).sample(Batch({}, Noise.of(0, 0, "s", torch.arange(2)), 2))
    assert samples.texts == ("abc", "abc")


def test_each_text_has_its_own_noise_and_the_same_noise_gives_the_same_text() -> None:
    ours = LanguageObjective(bigram(), ByteTokenizer(), 12)
    with torch.no_grad():
        three = ours.sample(Batch({}, Noise.of(0, 0, "s", torch.arange(3)), 3)).texts
        last_two = ours.sample(Batch({}, Noise.of(0, 0, "s", torch.arange(1, 3)), 2)).texts
    assert three is not None
    assert last_two is not None
    assert len(set(three)) == 3
    assert three[1:] == last_two
