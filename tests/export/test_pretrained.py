"""What an export of a base's run is made of, without a run: tied weights are not merged, and what was not trained is the base's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.models.bases import base, model
from trainjobs.api.errors import JobError
from trainjobs.api.language import Language
from trainjobs.api.pretrained import Base
from trainjobs.data.pretrained import fetched
from trainjobs.export.pretrained import allowed, finish

pytestmark = pytest.mark.slow  # transformers takes seconds to import


def given(root: Path, adapter: dict[str, Any] | None, **sizes: Any) -> tuple[Language, dict[str, Any]]:
    path = base(root / "base", "llama", layers=1, **sizes)
    language = Language.model_validate({"base": {"source": f"file://{path}"}, "adapter": adapter})
    return language, fetched(Base(source=f"file://{path}"), f"file://{path}", root / "cache").account


@pytest.mark.parametrize("adapter", [{"targets": ["lm_head"]}, {"targets": ["q_proj"], "modulesToSave": ["embed_tokens"]}])
def test_tied_weights_are_not_merged(tmp_path: Path, adapter: dict[str, Any]) -> None:
    language, account = given(tmp_path, adapter, tied=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(JobError, match="share their weights") as error:
        finish(tmp_path / "out", language, account, "fp32", merge=True)
    assert error.value.code == "GTJ0108"


@pytest.mark.parametrize("kind", ["prompt", "pTuning", "prefix", "bottleneck"])
def test_what_is_no_change_of_the_base_is_not_merged(kind: str) -> None:
    language = Language.model_validate({"base": {"source": "file:///base"}, "adapter": {"type": kind}})
    with pytest.raises(JobError, match=f"an adapter of type {kind} cannot be merged.*export the adapter") as error:
        allowed(language, adapter=False, merge=True)
    assert (error.value.code, error.value.where) == ("GTJ0108", "--merge")


def test_what_was_not_trained_is_the_base_s(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    language, account = given(tmp_path, None)
    (tmp_path / "out").mkdir()
    trained = {"lm_head.weight": torch.ones(259, 32)}
    save_file(trained, tmp_path / "out" / "model.safetensors")
    assert finish(tmp_path / "out", language, account, "fp32", merge=False, frozen=True) == ["model.safetensors"]
    found = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "out").named_parameters())
    before = dict(model("llama", layers=1).named_parameters())
    assert torch.equal(found["lm_head.weight"], trained["lm_head.weight"])
    assert all(torch.equal(found[name], before[name]) for name in before if name != "lm_head.weight")


def test_a_base_that_is_gone_is_said(tmp_path: Path) -> None:
    language, account = given(tmp_path, {})
    (tmp_path / "out").mkdir()
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(JobError) as error:
        finish(tmp_path / "out", language, account, "fp32", merge=False)
    assert error.value.code == "GTJ0118"
