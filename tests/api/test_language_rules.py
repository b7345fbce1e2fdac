"""What does not go together in a language model, and what is told to whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.api.rules import check


def problems(language: dict[str, Any], source: str = "file:///data", size: int = 16, gpus: int = 0) -> list[tuple[str, str]]:
    spec = {"language": language, "data": {"source": source}, "training": {"steps": 1, "batch": {"global": size}}}
    spec |= {"compute": {"gpusPerWorker": gpus}}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec}
    return [(problem.code, f"{problem.what}; {problem.how}") for problem in check(Job.model_validate(job))]


OWN = {"base": {"source": "file:///base"}}
REWARDS = [{"function": "length", "target": 8}]
TAUGHT = {"teacher": {"source": "file:///teacher"}}
BASE = {"source": "file:///base"}


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
        ({"attention": "flex"}, {}, "GTJ0108", "set compute.gpusPerWorker, or attention: sdpa"),
        ({"attention": "flex", "packing": "none"}, {"gpus": 1}, "GTJ0108", "set packing: bfd"),
        ({"attention": "flex", "network": {"dropout": 0.1}}, {"gpus": 1}, "GTJ0108", "take dropout out"),
        ({"attention": "varlen"}, {"gpus": 1}, "GTJ0108", "set training.precision: bf16"),
        ({"attention": "sdpa", "method": "dpo"}, {}, "GTJ0108", "attention has no effect with method: dpo"),
        ({"method": "grpo"}, {}, "GTJ0108", "add rewards"),
        ({"method": "grpo", "grpo": {"rewards": REWARDS}}, {"size": 20}, "GTJ0103", "nearest sizes that they do: 16 or 24"),
        ({"method": "grpo", "grpo": {"rewards": REWARDS, "maxCompletion": 128}}, {}, "GTJ0108", "raise network.contextLength"),
        ({"method": "grpo", "grpo": {"rewards": [{"function": "regex"}]}}, {}, "GTJ0108", "add pattern"),
        ({"method": "grpo", "grpo": {"rewards": [{"function": "a:b", "target": 3}]}}, {}, "GTJ0108", "take target out"),
        ({"method": "ppo"}, {}, "GTJ0108", "add rewards"),
        ({"method": "ppo", "ppo": {"rewards": REWARDS, "maxCompletion": 128}}, {}, "GTJ0108", "raise network.contextLength"),
        ({"method": "ppo", "ppo": {"rewards": [{"function": "match"}]}}, {}, "GTJ0108", "add column"),
        ({"method": "ppo", "ppo": {"rewards": REWARDS}, "network": {"dropout": 0.1}}, {}, "GTJ0108", "take dropout out"),
        ({"method": "grpo", "grpo": {"rewards": REWARDS}, "ppo": {"clip": 0.1}}, {}, "GTJ0108", "clip has no effect with method: grpo"),
        ({"method": "distill"}, {}, "GTJ0108", "distill.teacher.source"),
        ({"method": "distill", "distill": TAUGHT, "loss": {"chunk": 5}}, {}, "GTJ0108", "take chunk out"),
        ({"method": "distill", "distill": {**TAUGHT, "onPolicy": 0.5}}, {}, "GTJ0108", "set packing: none"),
        ({"method": "distill", "packing": "none", "distill": {**TAUGHT, "topK": 8, "onPolicy": 0.5}}, {}, "GTJ0108", "topK with onPolicy"),
        ({"method": "distill", "distill": {**TAUGHT, "topK": 8, "hiddenStates": 1}}, {}, "GTJ0108", "take hiddenStates out, or topK"),
        ({"method": "distill", "distill": {**TAUGHT, "prepared": "s3://a/b"}}, {}, "GTJ0108", "take prepared out"),
        ({"method": "distill", "distill": {**TAUGHT, "topK": 8, "prepared": "s3://a"}}, {}, "GTJ0107", "name a folder in it"),
        ({"method": "distill", "distill": {**TAUGHT, "maxCompletion": 8}}, {}, "GTJ0108", "maxCompletion has no effect with onPolicy: 0"),
        (
            {"method": "distill", "packing": "none", "distill": {**TAUGHT, "onPolicy": 1, "maxCompletion": 128}},
            {},
            "GTJ0108",
            "raise network.contextLength",
        ),
        ({"method": "distill", "distill": {"teacher": {"source": "file://models/one"}}}, {}, "GTJ0107", "copy the model to a bucket"),
        ({"method": "distill", "distill": {"teacher": {"source": "file:///a", "revision": "b"}}}, {}, "GTJ0108", "take revision out"),
        ({"method": "dpo", "base": BASE, "unfreezing": {"every": 5}}, {}, "GTJ0108", "has no effect with method: dpo"),
        ({"template": "zephyr"}, {}, "GTJ0108", "name a trained model in language.base.source, or take template out"),
        ({"base": BASE, "template": "zefyr"}, {}, "GTJ0102", 'did you mean "zephyr"?'),
        ({"base": BASE, "template": "/chat.jinja"}, {}, "GTJ0102", "file:///chat.jinja"),
        ({"base": BASE, "template": "file://chat.jinja"}, {}, "GTJ0107", "relative path"),
        ({"task": "masked", **OWN, "template": "zephyr"}, {}, "GTJ0108", "template has no effect with task: masked"),
        ({"task": "masked"}, {}, "GTJ0108", "name a trained model of that kind in language.base.source"),
        ({"task": "masked", **OWN, "method": "dpo"}, {}, "GTJ0108", "method has no effect with task: masked"),
        ({"task": "masked", **OWN, "packing": "bfd"}, {}, "GTJ0108", "packing has no effect with task: masked"),
        ({"task": "seq2seq", **OWN, "loss": {"chunk": 8}}, {}, "GTJ0108", "take chunk out"),
        ({"task": "seq2seq", **OWN, "loss": {"tokens": "all"}}, {}, "GTJ0108", "take tokens out"),
        ({"task": "seq2seq", **OWN, "adapter": {"type": "prefix"}}, {}, "GTJ0108", "take lora, dora or ia3"),
        ({"task": "caption", **OWN, "unfreezing": {"every": 3}}, {}, "GTJ0108", "unfreezing has no effect with task: caption"),
        ({"masking": {"share": 0.3}}, {}, "GTJ0108", "share has no effect with task: causal"),
        ({"task": "masked", **OWN, "masking": {"replaced": 0.9, "random": 0.2}}, {}, "GTJ0108", "lower one of them"),
        ({"task": "masked", **OWN}, {"source": "builtin:stdlib-pairs"}, "GTJ0108", "use builtin:stdlib-text"),
        ({"task": "seq2seq", **OWN}, {"source": "builtin:stdlib-chat"}, "GTJ0108", "use builtin:stdlib-pairs"),
        ({"task": "caption", **OWN}, {"source": "builtin:stdlib-text"}, "GTJ0108", "builtin:shapes"),
        ({"task": "seq2seq", **OWN}, {"source": "builtin:shapes"}, "GTJ0108", "builtin:stdlib-pairs"),
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
        ({"base": BASE, "template": "chatml"}, "builtin:stdlib-chat"),
        ({"base": BASE, "template": "s3://bucket/chat.jinja"}, "builtin:stdlib-chat"),
        ({"method": "reward", "network": {"dropout": 0.1}}, "builtin:stdlib-preferences"),
        ({"method": "grpo", "grpo": {"rewards": REWARDS}}, "builtin:stdlib-pairs"),
        ({"method": "ppo", "ppo": {"rewards": REWARDS, "klCoefficient": 0}}, "builtin:stdlib-pairs"),
        ({"method": "distill", "distill": TAUGHT, "loss": {"labelSmoothing": 0.1}}, "builtin:stdlib-chat"),
        ({"method": "distill", "distill": {**TAUGHT, "topK": 64, "beta": 0.5}}, "builtin:stdlib-text"),
        ({"method": "distill", "distill": {**TAUGHT, "topK": 64, "prepared": "gs://bucket/taught"}}, "builtin:stdlib-text"),
        ({"method": "distill", "packing": "none", "distill": {**TAUGHT, "onPolicy": 0.5}}, "builtin:stdlib-pairs"),
        ({"task": "masked", **OWN, "unfreezing": {"every": 3}, "masking": {"share": 0.3}}, "builtin:stdlib-text"),
        ({"task": "seq2seq", **OWN, "adapter": {}, "loss": {"labelSmoothing": 0.1}}, "builtin:stdlib-pairs"),
        ({"task": "caption", **OWN, "adapter": {"type": "ia3"}}, "builtin:shapes"),
    ],
)
def test_what_goes_together_is_not(language: dict[str, Any], source: str) -> None:
    assert problems(language, source) == []


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_a_prefix_has_no_blocks_that_are_computed_again(kind: str) -> None:
    language = {**OWN, "adapter": {"type": kind}}
    whole = {"language": language, "data": {"source": "file:///data"}, "training": {"steps": 1, "gradientCheckpointing": True}}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": whole}
    found = [(problem.code, ".".join(map(str, problem.path))) for problem in check(Job.model_validate(job))]
    assert found == ([("GTJ0108", "spec.training.gradientCheckpointing")] if kind == "prefix" else [])


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
    assert found({"task": "seq2seq", **OWN}) == []
