"""Bases of transformers' own classes compute what transformers computes; others are refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
import torch

from tests.models.bases import base, model
from trainjobs.api.errors import JobError
from trainjobs.data.pretrained import Pretrained
from trainjobs.models.pretrained import configured, load

pytestmark = pytest.mark.slow  # transformers takes seconds to import

KINDS = ("gpt2", "llama", "qwen2", "mistral", "gemma2", "gpt_neox")


def pretrained(folder: Path) -> Pretrained:
    return Pretrained("source", "uri", folder, {path.name: "digest" for path in folder.iterdir()})


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    ours = load(pretrained(base(tmp_path, kind, layers=1)), half=False, context=16)
    theirs = model(kind, layers=1)
    tokens = torch.arange(48).remainder(11).view(2, 24)
    both = [each(input_ids=tokens).logits for each in (ours, theirs)]
    assert float((both[0] - both[1]).detach().abs().max()) < 1e-5
    for logits in both:
        logits.square().sum().backward()
    mine = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert torch.allclose(mine[name].grad, parameter.grad, rtol=1e-4, atol=1e-4), name  # type: ignore[arg-type]


def test_half_is_bfloat16(tmp_path: Path) -> None:
    found = load(pretrained(base(tmp_path, "llama", layers=1)), half=True, context=16)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"model_type": "mystery"}, "model_type 'mystery'"),
        ({"model_type": "mystery", "auto_map": {"AutoModelForCausalLM": "modeling.Mystery"}}, "never run"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "a LlamaForCausalLM"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "T5ForConditionalGeneration"),
    ],
)
def test_other_classes_are_refused(tmp_path: Path, told: dict[str, Any], words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(JobError, match=words) as error:
        configured(pretrained(tmp_path))
    assert error.value.code == "GTJ0109"


def test_code_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    base(tmp_path, "llama", layers=1)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "auto_map": {"AutoModelForCausalLM": "modeling.Mystery"}}))
    (tmp_path / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert type(load(pretrained(tmp_path), half=False, context=16)).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base(tmp_path, "llama", layers=1)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match=r"lm_head\.weight") as error:
        load(pretrained(tmp_path), half=False, context=16)
    assert error.value.code == "GTJ0109"


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    base(tmp_path, "llama", layers=1)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(JobError, match="cannot be loaded") as error:
        load(pretrained(tmp_path), half=False, context=16)
    assert error.value.code == "GTJ0109"


def test_a_context_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="it has 128 positions, and 129 are needed") as error:
        load(pretrained(base(tmp_path, "gpt2", layers=1)), half=False, context=129)
    assert error.value.code == "GTJ0108"


def test_two_threads_that_load_leave_weights_tied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a load another one would begin, if it could: of two that overlap, the second puts back what the first has put there."""
    import transformers

    found, meeting = pretrained(base(tmp_path, "gpt2", layers=1, tied=True)), Barrier(2)
    made, theirs = list[bool](), transformers.GPT2LMHeadModel.__init__

    def slow(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            meeting.wait(1.0)
            made.append(True)
        except BrokenBarrierError:
            made.append(False)
        theirs(self, *arguments, **named)

    before = transformers.PreTrainedModel.tie_weights
    with monkeypatch.context() as patched:
        patched.setattr(transformers.GPT2LMHeadModel, "__init__", slow)
        with ThreadPoolExecutor(2) as pool:
            models: list[Any] = list(pool.map(lambda _: load(found, half=False, context=16), range(2)))
    assert made == [False, False], "they were not there at the same time"
    try:
        assert transformers.PreTrainedModel.tie_weights is before
        assert all(one.lm_head.weight is one.transformer.wte.weight for one in models)
    finally:
        transformers.PreTrainedModel.tie_weights = before
