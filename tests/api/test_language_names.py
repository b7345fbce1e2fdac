"""Names of tools for language models are answered with ours, at the place where somebody writes them."""

from __future__ import annotations

import pytest

from trainjobs.api.job import API_VERSION, KIND
from trainjobs.api.parse import parse


@pytest.mark.parametrize(
    ("place", "name", "says"),
    [
        ("language", "base_model", "axolotl's base_model is spec.language.base.source here"),
        ("language", "sequence_len", "axolotl's sequence_len is spec.language.network.contextLength here"),
        ("language.adapter", "lora_rank", "LLaMA-Factory's lora_rank is spec.language.adapter.rank here"),
        ("language.adapter", "lora_r", "spec.language.adapter.rank"),
        ("language.dpo", "pref_beta", "LLaMA-Factory's pref_beta is spec.language.dpo.beta here"),
        ("language.loss", "assistant_only_loss", "TRL's assistant_only_loss is spec.language.loss.tokens here: assistant"),
        ("language.grpo", "num_generations", "TRL's num_generations is spec.language.grpo.generations here"),
        ("training", "per_device_train_batch_size", "spec.training.batch.micro here: global / (processes * micro)"),
    ],
)
def test_validate_answers_with_the_field(place: str, name: str, says: str) -> None:
    spec: dict[str, object] = {"language": {}, "data": {"source": "builtin:stdlib-text"}, "training": {"steps": 1}}
    at = spec
    for key in place.split("."):
        at = at.setdefault(key, {})  # type: ignore[assignment]
    at[name] = 1
    _, problems = parse({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": spec})
    (found,) = [problem for problem in problems if problem.code == "GTJ0101"]
    assert says in found.how
