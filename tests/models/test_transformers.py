"""Language models: transformers' networks, called in ways that must agree with each other and with its own eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainjobs.api.language import Transformer
from trainjobs.models.configuration import feed_forward
from trainjobs.models.transformers import causal_language_model

pytestmark = pytest.mark.slow  # importing transformers takes seconds


def make(architecture: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    small = {"layers": 2, "hidden": 32, "heads": 4, "contextLength": 16}
    network = Transformer.model_validate({**small, **fields, "architecture": architecture})
    return causal_language_model(network, 260, 256)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_attention_is_causal_and_equals_the_eager_one(architecture: str) -> None:
    model = make(architecture).eval()
    tokens = torch.randint(0, 260, (3, 16))
    with torch.no_grad():
        logits = model(input_ids=tokens).logits
        changed = tokens.clone()
        changed[:, 10] = (changed[:, 10] + 1) % 260
        after = model(input_ids=changed).logits
        model.set_attn_implementation("eager")
        eager = model(input_ids=tokens).logits
    assert logits.shape == (3, 16, 260)
    torch.testing.assert_close(logits, eager, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits[:, :10], after[:, :10])
    assert not torch.equal(logits[:, 10:], after[:, 10:])


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_token_by_token_with_a_cache_equals_all_at_once(architecture: str) -> None:
    model = make(architecture).eval()
    tokens = torch.randint(0, 260, (3, 16))
    past, pieces = None, []
    with torch.no_grad():
        whole = model(input_ids=tokens).logits
        for i in range(16):
            output = model(input_ids=tokens[:, i : i + 1], past_key_values=past, use_cache=True)
            past = output.past_key_values
            pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_no_forward_pass_reads_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name "sdpa" transformers asks whether the positions are packed, which waits for the device."""
    model = make("gpt2")
    tokens = torch.randint(0, 260, (2, 16))
    reads = []
    truth = torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: (reads.append(1), truth(self))[1])
    monkeypatch.setattr(torch.Tensor, "item", lambda self: reads.append(1))
    model(input_ids=tokens)
    assert not reads
    model.set_attn_implementation("sdpa")
    model(input_ids=tokens)
    assert reads  # else the name of our own is not needed any more


def test_dropout_is_what_the_manifest_says() -> None:
    tokens = torch.randint(0, 260, (2, 16))
    still, noisy = make("gpt2").train(), make("gpt2", dropout=0.5).train()
    assert torch.equal(still(input_ids=tokens).logits, still(input_ids=tokens).logits)
    assert not torch.equal(noisy(input_ids=tokens).logits, noisy(input_ids=tokens).logits)


def test_llama_is_of_llamas_shape() -> None:
    model = make("llama")
    hidden, inner = 32, feed_forward(32)
    block = 4 * hidden**2 + 3 * hidden * inner + 2 * hidden
    assert sum(p.numel() for p in model.parameters()) == 2 * 260 * hidden + 2 * block + hidden
    assert [feed_forward(h) for h in (24, 768, 4096)] == [64, 2048, 10944]
