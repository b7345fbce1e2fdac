"""Models of rewards as others load them: transformers' classes of one label, and peft's adapters beside them, score as ours do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.export.ranks import saved
from tests.models.bases import base, model
from trainjobs.api.language import Transformer
from trainjobs.api.pretrained import Adapter, Base
from trainjobs.data.pretrained import fetched
from trainjobs.data.pretrained_tokenizer import read
from trainjobs.export.export import export
from trainjobs.models.adapters import adapted
from trainjobs.models.transformers import causal_language_model
from trainjobs.objectives.language.preference import Scored

pytestmark = pytest.mark.slow  # transformers takes seconds to import

END, LENGTHS = 256, (5, 9, 3)


def rows(fill: int) -> list[Tensor]:
    """Answers that end, of which one holds what fills up within."""
    drawn = torch.randint(0, 250, (3, 9), generator=torch.Generator().manual_seed(0))
    drawn[1, 4] = fill
    return [torch.cat([row[: length - 1], torch.tensor([END])]) for row, length in zip(drawn, LENGTHS, strict=True)]


def ours(scored: nn.Module, fill: int) -> Tensor:
    filled = nn.utils.rnn.pad_sequence(rows(fill), batch_first=True, padding_value=fill)
    with torch.no_grad():
        found: Tensor = scored.eval()(input_ids=filled, last=torch.tensor(LENGTHS))
    return found


def written(folder: Path, scored: nn.Module, language: dict[str, Any], more: dict[str, Any], *, merge: bool = False) -> Path:
    trained = {f"fp32/{name}": p.detach() for name, p in scored.named_parameters() if p.requires_grad}
    spec = {"language": {**language, "method": "reward"}}
    checkpoints, commit = saved(folder, {"model": trained}, world=2, spec=spec, more=more)
    export(checkpoints, commit, folder / "out", weights=None, dtype="fp32", merge=merge)
    return folder / "out"


def based(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """(the base's part of a manifest, what a commit keeps of it, its tokenizer)"""
    path = base(folder / "base", kind)
    found = fetched(Base(source=f"file://{path}"), f"file://{path}", folder / "cache")
    return {"base": {"source": f"file://{path}"}}, {"base": found.account}, read(found)


def stirred(network: nn.Module) -> nn.Module:
    """With an adapter that changes something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_one_from_a_configuration_is_read_row_by_row_and_no_batch_is_misread(architecture: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = Transformer.model_validate({"architecture": architecture, "layers": 2, "hidden": 32, "heads": 2, "contextLength": 32})
    scored = Scored(causal_language_model(network, 257, END))
    out = written(tmp_path, scored, {"network": network.model_dump(mode="json", by_alias=True)}, {})
    theirs = AutoModelForSequenceClassification.from_pretrained(out, num_labels=1)
    with torch.no_grad():
        found = torch.cat([theirs(input_ids=row[None]).logits[:, 0] for row in rows(7)])
        with pytest.raises(ValueError, match="no padding token is defined"):
            theirs(input_ids=torch.stack([rows(7)[0]] * 2))
    torch.testing.assert_close(found, ours(scored, 7), atol=1e-6, rtol=1e-6)
    assert AutoTokenizer.from_pretrained(out).eos_token_id == END
    assert not (out / "generation_config.json").exists()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_one_that_went_on_from_a_base_is_read_in_batches(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    language, more, tokenizer = based(tmp_path, kind)
    scored = Scored(model(kind))
    theirs = AutoModelForSequenceClassification.from_pretrained(written(tmp_path, scored, language, more), num_labels=1)
    assert theirs.config.pad_token_id == tokenizer.pad == 258
    batch = nn.utils.rnn.pad_sequence(rows(258)[:1] + rows(5)[1:], batch_first=True, padding_value=258)
    seen = (torch.arange(9)[None] < torch.tensor(LENGTHS)[:, None]).long()
    with torch.no_grad():
        found = theirs(input_ids=batch, attention_mask=seen).logits[:, 0]
    torch.testing.assert_close(found, ours(scored, 5), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(("kind", "adapter"), [("llama", {"trainTokens": ["e"]}), ("gpt2", {"rank": 2}), ("llama", {"type": "ia3"})])
def test_an_adapter_is_loaded_by_peft_and_merged(kind: str, adapter: dict[str, Any], merge: bool, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    language, more, tokenizer = based(tmp_path, kind)
    asked = Adapter.model_validate(adapter)
    scored = stirred(Scored(adapted(model(kind), asked, tokenizer)))
    trained = [name for name, parameter in scored.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or "ia3_" in name or "trainable_tokens" in name or name == "score.weight" for name in trained)
    out = written(tmp_path, scored, {**language, "adapter": adapter}, more, merge=merge)
    path = out if merge else tmp_path / "base"
    theirs = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
    if not merge:
        assert not [path.name for path in out.glob("model*")]
        theirs = PeftModel.from_pretrained(theirs, out)
    with torch.no_grad():
        found = torch.cat([theirs.eval()(input_ids=row[None]).logits[:, 0] for row in rows(7)])
    torch.testing.assert_close(found, ours(scored, 7), atol=1e-5, rtol=1e-5)


def test_an_adapter_of_the_last_layer_is_refused() -> None:
    from trainjobs.api.errors import JobError
    from trainjobs.objectives.language.build import held_by

    made = adapted(model("llama"), Adapter.model_validate({"targets": ["q_proj", "lm_head"]}))
    with pytest.raises(JobError, match="GTJ0108 the adapter changes lm_head of a model of rewards"):
        held_by(Scored(made), made)
    made = adapted(model("llama"), Adapter())
    held_by(Scored(made), made)
