"""An exported language model in transformers' own hands: the same logits, the same tokens, the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.export.ranks import saved
from trainjobs.api.language import Language
from trainjobs.data.tokens import BpeTokenizer, ByteTokenizer, Tokenizer, kept, train_bpe
from trainjobs.export.export import export
from trainjobs.models.transformers import causal_language_model

pytestmark = pytest.mark.slow  # importing transformers takes seconds

TEXTS = ["To be, or not to be: that is the question.\n", "naïve café, 北京 \U0001f600\t  two  spaces 123", "def f(x):\n    return x's", ""]


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return train_bpe([text * 20 for text in TEXTS], 400)


def made(architecture: str, tokenizer: Tokenizer) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(3)
    network = {"architecture": architecture, "layers": 2, "hidden": 24, "heads": 2, "contextLength": 64}
    kind = {"type": "bpe", "vocabularySize": 400} if isinstance(tokenizer, BpeTokenizer) else {"type": "byte"}
    language = Language.model_validate({"network": network, "tokenizer": kind})
    model: Any = causal_language_model(language.network, tokenizer.vocabulary, tokenizer.end)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # biases and norms begin as zeros and ones
    return model.eval(), {"language": language.model_dump(mode="json", by_alias=True), "images": {}}


def exported(model: Any, spec: dict[str, Any], tokenizer: Tokenizer, folder: Path, **options: Any) -> Path:
    tensors: dict[str, Tensor] = {f"fp32/{name}": parameter.detach() for name, parameter in model.named_parameters()}
    checkpoints, commit = saved(folder, {"model": tensors}, spec=spec, beside=kept(tokenizer))
    assert export(checkpoints, commit, folder / "out", **{"weights": None, "dtype": "fp32", **options}).hugging_face
    return folder / "out"


@pytest.mark.parametrize("limit", [10**9, 5000])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_logits_are_those_of_the_network_that_was_trained(architecture: str, limit: int, bpe: BpeTokenizer, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, spec = made(architecture, bpe)
    theirs, loading = AutoModelForCausalLM.from_pretrained(exported(model, spec, bpe, tmp_path, limit=limit), output_loading_info=True)
    assert not any(loading.values()), loading
    assert theirs.dtype == torch.float32
    tokens = torch.randint(0, bpe.vocabulary, (3, 64))
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(input_ids=tokens).logits, model(input_ids=tokens).logits, rtol=1e-5, atol=1e-5)
    if architecture == "gpt2":
        assert theirs.lm_head.weight is theirs.transformer.wte.weight
    else:
        assert not torch.equal(theirs.lm_head.weight, theirs.model.embed_tokens.weight)


def test_bf16_is_loaded_as_such(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = ByteTokenizer()
    model, spec = made("llama", tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(exported(model, spec, tokenizer, tmp_path, dtype="bf16"))
    ours = dict(model.named_parameters())
    assert all(torch.equal(value, ours[name].bfloat16()) for name, value in theirs.named_parameters())


@pytest.mark.parametrize("kind", ["bpe", "byte"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_tokens_and_text_are_ours(architecture: str, kind: str, bpe: BpeTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = bpe if kind == "bpe" else ByteTokenizer()
    model, spec = made(architecture, tokenizer)
    theirs = AutoTokenizer.from_pretrained(exported(model, spec, tokenizer, tmp_path))
    assert len(theirs) == tokenizer.vocabulary
    assert theirs.eos_token_id == theirs.bos_token_id == tokenizer.end
    for text in TEXTS:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
        assert theirs.decode([*tokenizer.encode(text), tokenizer.end], skip_special_tokens=True) == text
    anything = torch.randint(0, tokenizer.end, (200,)).tolist()
    assert theirs.decode(anything) == tokenizer.decode(anything)


def test_it_writes_until_the_end_of_the_text(bpe: BpeTokenizer, tmp_path: Path) -> None:
    """What `generate` needs to know stands beside the weights."""
    from transformers import AutoModelForCausalLM

    model, spec = made("gpt2", bpe)
    folder = exported(model, spec, bpe, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.generation_config.eos_token_id == bpe.end
    drawn = theirs.generate(torch.tensor([bpe.encode("To be")]), max_new_tokens=5, do_sample=False, pad_token_id=bpe.end)
    expected = model.generate(torch.tensor([bpe.encode("To be")]), max_new_tokens=5, do_sample=False, use_cache=False, pad_token_id=bpe.end)
    assert drawn.tolist() == expected.tolist()
    facts = json.loads((folder / "gentrain.json").read_text())
    assert (facts["family"], facts["networks"]) == ("language", {"model": ["model.safetensors"]})


def test_no_pair_of_characters_is_taken_for_the_end(bpe: BpeTokenizer) -> None:
    """The name of the end-of-text token is no token of the trained vocabulary: else it would have two numbers."""
    assert "<|endoftext|>" not in train_bpe(["<|endoftext|>" * 50], 400).inner.get_vocab()
