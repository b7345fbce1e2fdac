"""What does not go together in a language model, and what is told to whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.api.rules import check


def problems(language: dict[str, Any], source: str = "file:///data", size: int = 16) -> list[tuple[str, str]]:
    spec = {"language": language, "data": {"source": source}, "training": {"steps": 1, "batch": {"global": size}}}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec}
    return [(problem.code, f"{problem.what}; {problem.how}") for problem in check(Job.model_validate(job))]


BASE = {"base": {"source": "file:///base"}}
REWARDS = [{"function": "length", "target": 8}]


@pytest.mark.parametrize(
    ("language", "more", "code", "words"),
    [
        ({"method": "dpo"}, {"source": "builtin:stdlib-text"}, "GTJ0108", "use builtin:stdlib-preferences"),
        ({}, {"source": "builtin:stdlib-preferences"}, "GTJ0108", "builtin:stdlib-chat"),
        ({"method": "dpo", "network": {"dropout": 0.1}}, {}, "GTJ0108", "take dropout out"),
        ({"method": "dpo", "packing": "bfd"}, {}, "GTJ0108", "packing has no effect with method: dpo"),
        ({"method": "dpo", "loss": {"chunk": 5}}, {}, "GTJ0108", "chunk has no effect with method: dpo"),
        ({"dpo": {"beta": 0.5}}, {}, "GTJ0108", "beta has no effect with method: sft"),
        ({"method": "dpo", "dpo": {"loss": "ipo", "labelSmoothing": 0.1}}, {}, "GTJ0108", "labelSmoothing has no effect with loss: ipo"),
        ({"method": "grpo"}, {}, "GTJ0108", "add rewards"),
        ({"method": "grpo", "grpo": {"rewards": REWARDS}}, {"size": 20}, "GTJ0103", "nearest sizes that they do: 16 or 24"),
        ({"method": "grpo", "grpo": {"rewards": REWARDS, "maxCompletion": 128}}, {}, "GTJ0108", "raise network.contextLength"),
        ({"method": "grpo", "grpo": {"rewards": [{"function": "regex"}]}}, {}, "GTJ0108", "add pattern"),
        ({"method": "grpo", "grpo": {"rewards": [{"function": "a:b", "target": 3}]}}, {}, "GTJ0108", "take target out"),
        ({"task": "masked"}, {}, "GTJ0108", "name a trained model of that kind in language.base.source"),
        ({"task": "masked", **BASE, "method": "dpo"}, {}, "GTJ0108", "method has no effect with task: masked"),
        ({"task": "masked", **BASE, "packing": "bfd"}, {}, "GTJ0108", "packing has no effect with task: masked"),
        ({"task": "seq2seq", **BASE, "loss": {"chunk": 8}}, {}, "GTJ0108", "take chunk out"),
        ({"task": "seq2seq", **BASE, "loss": {"tokens": "all"}}, {}, "GTJ0108", "take tokens out"),
        ({"task": "seq2seq", **BASE, "adapter": {"type": "prefix"}}, {}, "GTJ0108", "take lora, dora or ia3"),
        ({"task": "caption", **BASE, "unfreezing": {"every": 3}}, {}, "GTJ0108", "unfreezing has no effect with task: caption"),
        ({"masking": {"share": 0.3}}, {}, "GTJ0108", "share has no effect with task: causal"),
        ({"task": "masked", **BASE, "masking": {"replaced": 0.9, "random": 0.2}}, {}, "GTJ0108", "lower one of them"),
        ({"task": "masked", **BASE}, {"source": "builtin:stdlib-pairs"}, "GTJ0108", "use builtin:stdlib-text"),
        ({"task": "seq2seq", **BASE}, {"source": "builtin:stdlib-chat"}, "GTJ0108", "use builtin:stdlib-pairs"),
        ({"task": "caption", **BASE}, {"source": "builtin:stdlib-text"}, "GTJ0108", "builtin:shapes"),
        ({"task": "seq2seq", **BASE}, {"source": "builtin:shapes"}, "GTJ0108", "builtin:stdlib-pairs"),
    ],
)
def test_what_does_not_go_together_is_refused(language: dict[str, Any], more: dict[str, Any], code: str, words: str) -> None:
    found = problems(language, **more)
    assert [one for one, _ in found] == [code], found
    assert words in found[0][1]


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ({}, "builtin:stdlib-chat"),
        ({"packing": "wrapped", "loss": {"tokens": "all", "chunk": 4096}}, "builtin:stdlib-pairs"),
        ({"method": "dpo"}, "builtin:stdlib-preferences"),
        ({"method": "reward", "network": {"dropout": 0.1}}, "builtin:stdlib-preferences"),
        ({"method": "grpo", "grpo": {"rewards": REWARDS}}, "builtin:stdlib-pairs"),
        ({"task": "masked", **BASE, "unfreezing": {"every": 3}, "masking": {"share": 0.3}}, "builtin:stdlib-text"),
        ({"task": "seq2seq", **BASE, "adapter": {}, "loss": {"labelSmoothing": 0.1}}, "builtin:stdlib-pairs"),
        ({"task": "caption", **BASE, "adapter": {"type": "ia3"}}, "builtin:shapes"),
    ],
)
def test_what_goes_together_is_not(language: dict[str, Any], source: str) -> None:
    assert problems(language, source) == []


@pytest.mark.parametrize(
    ("place", "spec"),
    [
        ("evaluation.metrics", {"evaluation": {"metrics": ["loss", "bleu"]}}),
        ("checkpoints.keep.best.metric", {"checkpoints": {"keep": {"best": {"metric": "heldout/rouge_l"}}}}),
        ("training.earlyStopping.metric", {"training": {"steps": 1, "earlyStopping": {"metric": "heldout/bleu"}}}),
    ],
)
def test_what_is_written_is_scored_of_models_that_write(place: str, spec: dict[str, Any]) -> None:
    def found(language: dict[str, Any]) -> list[str]:
        whole = {"language": language, "data": {"source": "file:///data"}, "training": {"steps": 1}, **spec}
        job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": whole}
        return [".".join(map(str, problem.path)) for problem in check(Job.model_validate(job))]

    assert found({}) == [f"spec.{place}"]
    assert found({"task": "seq2seq", **BASE}) == []
