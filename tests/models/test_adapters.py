"""What an adapter changes, how it begins, and what it refuses. That it trains as peft's does is in tests/equivalence/test_adapters.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.bases import base, model, tokenizer
from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import Adapter
from trainjobs.data.pretrained import Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer, read
from trainjobs.models.adapters import adapted, targeted, tied

pytestmark = pytest.mark.slow  # peft takes seconds to import

TOKENS = torch.arange(24).remainder(7).view(2, 12)


def tokens(folder: Path) -> PretrainedTokenizer:
    tokenizer(folder)
    return read(Pretrained("source", "uri", folder, {path.name: "digest" for path in folder.iterdir()}))


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network.eval()(input_ids=TOKENS).logits
    return found


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "bottleneck"])
@pytest.mark.parametrize("base_kind", ["gpt2", "llama"])
def test_at_first_an_adapter_changes_nothing(kind: str, base_kind: str) -> None:
    before = logits(model(base_kind))
    made = adapted(model(base_kind), Adapter.model_validate({"type": kind}))
    assert torch.allclose(logits(made), before, atol=1e-6)
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < sum(p.numel() for p in made.parameters()) / 2


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["all-linear"], "all-linear"),
        (["q_proj"], ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        (["layers.1.*.v_proj", "lm_head"], ["model.layers.1.self_attn.v_proj", "lm_head"]),
        (["model.layers.0.mlp.*_proj"], [f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")]),
    ],
)
def test_patterns_choose_layers(patterns: list[str], expected: str | list[str]) -> None:
    assert targeted(model("llama"), patterns) == expected


def test_all_linear_leaves_the_last_layer_out() -> None:
    made = adapted(model("llama"), Adapter())
    changed = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert not any("lm_head" in name or "embed" in name for name in changed)
    assert len(changed) == 2 * 2 * 7  # two matrices for each of seven layers of two blocks


def test_rows_of_tokens_are_trained_in_full_precision_and_a_tied_last_layer_writes_them(tmp_path: Path) -> None:
    asked = Adapter.model_validate({"targets": ["q_proj"], "trainTokens": ["<|end|>", "e", " "]})
    half = model("llama", tied=True).to(torch.bfloat16)
    made = adapted(half, asked, tokens(tmp_path))
    rows = {name: p for name, p in made.named_parameters() if p.requires_grad and "token_adapter" in name}
    assert [(tuple(p.shape), p.dtype) for p in rows.values()] == [((3, 32), torch.float32)]
    before = logits(made)
    with torch.no_grad():
        next(iter(rows.values())).zero_()
    assert torch.equal(logits(made)[..., [256, 68, 220]], torch.zeros(2, 12, 3))
    assert not torch.equal(before[..., [256, 68, 220]], torch.zeros(2, 12, 3))
    with made.disable_adapter():  # type: ignore[operator]
        assert torch.equal(logits(made), logits(model("llama", tied=True).to(torch.bfloat16))), "the reference of DPO is the base itself"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["the end"], "'the end' is no single token .* it is 7 tokens: 't', 'h', 'e', 'Ġ'"),
        (["<|fim|>"], "'<|fim|>' is no single token"),
        (["e", "e"], "'e' is no other token .* it is the same as 'e'"),
        ([" ", "Ġ"], "'Ġ' is no other token .* it is the same as ' '"),
    ],
)
def test_what_is_not_one_token_is_refused(given: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=words.replace("|", "[|]")) as error:
        adapted(model("llama"), Adapter.model_validate({"targets": ["q_proj"], "trainTokens": given}), tokens(tmp_path))
    assert error.value.code == "GTJ0102"
    assert error.value.where == "language.adapter.trainTokens"


@pytest.mark.parametrize("field", ["targets", "modulesToSave"])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(field: str) -> None:
    with pytest.raises(JobError, match="query is no layer") as error:
        adapted(model("llama"), Adapter.model_validate({field: ["query"]}))
    assert error.value.code == "GTJ0102"
    assert "model.layers.*.self_attn.q_proj" in error.value.how


def test_ia3_of_unknown_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("llama")
    made.config.model_type = "mystery"
    with pytest.raises(JobError, match="mystery") as error:
        adapted(made, Adapter(type="ia3"))
    assert error.value.code == "GTJ0109"


def test_a_prompt_begins_as_words(tmp_path: Path) -> None:
    given, network = tokens(tmp_path), model("llama")
    words = network.get_input_embeddings().weight.detach()
    found: dict[str, torch.Tensor] = {}
    for init, text in (("vocabulary", ""), ("text", "abc"), ("random", "")):
        chosen = Adapter.model_validate({"type": "prompt", "virtualTokens": 5, "init": init, "initText": text})
        made: Any = adapted(model("llama"), chosen, given)
        found[init] = made.prompt_encoder["default"].embedding.weight.detach()
    assert torch.equal(found["text"], words[torch.tensor(given.inner.encode("abcab").ids)])
    assert all((words == row).all(1).any() for row in found["vocabulary"])
    assert not any((words == row).all(1).any() for row in found["random"])


@pytest.mark.parametrize("kind", ["prompt", "pTuning", "prefix"])
@pytest.mark.parametrize("base_kind", ["gpt2", "llama"])
def test_virtual_tokens_stand_before_the_first_call_alone(tmp_path: Path, kind: str, base_kind: str) -> None:
    """Token by token, with the keys and values of those before, as all at once; and as plain peft has it."""
    from peft import PeftModelForCausalLM

    from tests.models.test_pretrained import pretrained
    from trainjobs.models.pretrained import load

    given = load(pretrained(base(tmp_path, base_kind)), half=False, context=16, mask=kind == "prefix")
    made: Any = adapted(given, Adapter.model_validate({"type": kind, "virtualTokens": 3})).eval()
    whole = logits(made)
    assert whole.shape[:2] == TOKENS.shape
    with torch.no_grad():
        plain = PeftModelForCausalLM.forward(made, input_ids=TOKENS).logits[:, -TOKENS.shape[1] :]
        assert torch.allclose(plain, whole, atol=1e-5)
        past, pieces = None, []
        for i in range(TOKENS.shape[1]):
            output = made(input_ids=TOKENS[:, i : i + 1], past_key_values=past, use_cache=True)
            past = output.past_key_values
            pieces.append(output.logits)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("shared", "chosen", "expected"),
    [
        (True, {"targets": ["lm_head"]}, True),
        (True, {"targets": ["embed_tokens"]}, True),
        (True, {"targets": ["q_proj"], "modulesToSave": ["lm_head"]}, True),
        (True, {}, False),
        (False, {"targets": ["lm_head"]}, False),
    ],
)
def test_what_changes_one_of_two_shared_layers_is_known(shared: bool, chosen: dict[str, Any], expected: bool) -> None:
    assert tied(model("llama", tied=shared), Adapter.model_validate(chosen)) is expected
