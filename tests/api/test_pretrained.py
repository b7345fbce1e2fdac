"""What a manifest may say of a base and its adapter, in Python. tests/integration/test_crd_on_server.py compares it with CEL."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.api.rules import check

BASE = {"source": "hf://org/model"}


def problems(language: dict[str, Any], **training: Any) -> list[tuple[str, str]]:
    spec = {"language": language, "data": {"source": "builtin:stdlib-text"}, "training": {"steps": 1, **training}}
    told = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec}
    return [(problem.code, ".".join(map(str, problem.path))) for problem in check(Job.model_validate(told))]


@pytest.mark.parametrize(
    "language",
    [
        {"base": BASE},
        {"base": {**BASE, "revision": "v1.0"}, "adapter": {}},
        {"base": {"source": "s3://bucket/model"}, "network": {"contextLength": 512}},
        {"base": BASE, "unfreezing": {"every": 100}},
        {"base": {"source": "file:///models/one"}, "adapter": {"type": "prompt", "virtualTokens": 100}},
        {"base": BASE, "network": {"layers": 4, "contextLength": 64}, "tokenizer": {"type": "byte"}},  # defaults never offend
    ],
)
def test_these_are_fine(language: dict[str, Any]) -> None:
    assert problems(language) == []


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ({"adapter": {}}, ("GTJ0108", "spec.language.adapter")),
        ({"base": BASE, "network": {"layers": 2}}, ("GTJ0108", "spec.language.network.layers")),
        ({"base": BASE, "tokenizer": {"type": "bpe"}}, ("GTJ0108", "spec.language.tokenizer")),
        ({"base": {"source": "hf://model"}}, ("GTJ0107", "spec.language.base.source")),
        ({"base": {"source": "hf://org/model@main"}}, ("GTJ0107", "spec.language.base.source")),
        ({"base": {"source": "file://model"}}, ("GTJ0107", "spec.language.base.source")),
        ({"base": {"source": "s3://b/m?x=1"}}, ("GTJ0107", "spec.language.base.source")),
        ({"base": {"source": "s3://b/m", "revision": "v1"}}, ("GTJ0108", "spec.language.base.revision")),
        ({"base": BASE, "adapter": {"type": "prefix", "virtualTokens": 128}}, ("GTJ0108", "spec.language.adapter.virtualTokens")),
        ({"base": BASE, "adapter": {"type": "prompt", "init": "text"}}, ("GTJ0108", "spec.language.adapter.init")),
        ({"unfreezing": {"every": 5}}, ("GTJ0108", "spec.language.unfreezing")),
        ({"base": BASE, "adapter": {}, "unfreezing": {"every": 5}}, ("GTJ0108", "spec.language.unfreezing")),
        ({"base": BASE, "adapter": {"type": "ia3", "rank": 4}}, ("GTJ0108", "spec.language.adapter.rank")),
        ({"base": BASE, "adapter": {"type": "lora", "virtualTokens": 4}}, ("GTJ0108", "spec.language.adapter.virtualTokens")),
    ],
)
def test_these_are_refused(language: dict[str, Any], expected: tuple[str, str]) -> None:
    assert problems(language) == [expected]


def test_two_beginnings_are_refused() -> None:
    assert problems({"base": BASE}, initialWeights="s3://b/w") == [("GTJ0108", "spec.training.initialWeights")]
