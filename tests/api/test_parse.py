"""Fields, one by one: what pydantic refuses, in our words, and what it would let pass but the API server would not."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.parse import parse


def manifest(**parts: Any) -> dict[str, Any]:
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}}
    return {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "job"},
        "spec": {**spec, **parts},
    }


def lines(data: Any) -> list[str]:
    return [problem.error().line() for problem in parse(data)[1]]


CASES: list[tuple[dict[str, Any], str]] = [
    (
        manifest(training={"steps": 1, "optimizers": {"default": {"learnigRate": 1}}}),
        'GTJ0101 unknown field "learnigRate" in spec.training.optimizers.default (spec.training.optimizers.default.learnigRate). '
        'did you mean "learningRate"?',
    ),
    (manifest(vae={"network": {"latent_dim": 3}}), 'did you mean "latentDim"?'),
    (manifest(training={"steps": 1, "learningRate": 1}), "learningRate is a field of spec.training.optimizers.*"),
    (manifest(gann={}), 'GTJ0101 unknown field "gann" in spec (spec.gann). did you mean "gan"?'),
    (manifest(suspend=True, xyz=1), "fields here: gan, vae,"),
    (manifest(vae={"network": {"architecture": "konv"}}), 'GTJ0102 "konv" is not allowed for spec.vae.network.architecture'),
    (manifest(vae={"network": {"architecture": "konv"}}), 'allowed: conv, mlp, autoencoder-kl. did you mean "conv"?'),
    (manifest(vae={"network": {"channels": 0}}), "GTJ0102 0 is not allowed for spec.vae.network.channels"),
    (manifest(vae={"network": {"channels": 0}}), "expected at least 1"),
    (manifest(data={"source": "digits"}), "expected a URI: file:///folder, s3://"),
    (manifest(training={"steps": "10"}), "GTJ0105 spec.training.steps must be an integer, not a string"),
    (manifest(training={"steps": "10"}), "take the quotes away"),
    (manifest(training={"steps": True}), "GTJ0105 spec.training.steps must be an integer, not a boolean"),
    (manifest(training={}), 'GTJ0105 missing field "steps" in spec.training (spec.training.steps). add `steps: 1000`'),
    (manifest(deepspeed={"stage": True}), "GTJ0102 true is not allowed for spec.deepspeed.stage"),
    (manifest(deepspeed={"stage": 4}), "allowed: auto, 0, 1, 2, 3"),
    (
        manifest(data={"source": "builtin:digits", "images": {"size": 31}}),
        "GTJ0102 31 is not allowed for spec.data.images.size (spec.data.images.size): expected a multiple of 8",
    ),
    (manifest(evaluation=None), "GTJ0105 spec.evaluation is empty (spec.evaluation): a key without a value means null, not the defaults"),
    (manifest(compute={"workers": 0}), "GTJ0102 0 is not allowed for spec.compute.workers (spec.compute.workers): expected at least 1"),
    (manifest(compute={"workers": "two"}), 'a range "min-max" such as "2-8"'),
    (manifest(compute={"workers": 1.5}), "must be an integer or a string, not a number"),
    (manifest(compute={"queue": True}), "yes, no, on, off, y and n are booleans in YAML"),
    (manifest(pod={"env": [{"name": "A", "value": 1}]}), "spec.pod.env[0].value must be a string, not an integer"),
    (manifest(pod={"env": [{"value": "1"}]}), 'missing field "name" in spec.pod.env[0]'),
    (manifest(checkpoints={"resumeFrom": "lastest"}), "expected latest, none, or a checkpoint's URI"),
    (manifest(recovery={"stallTimeout": "1 hour"}), "expected a duration such as 30m"),
    (manifest(budget={"maxUSD": 12.5}), 'put quotes around it: "12.5"'),
    (manifest(training={"steps": 1, "optimizers": {"default": {"betas": [0.9]}}}), "expected at least 2 entries"),
    (manifest(evaluation={"metrics": "loss"}), "spec.evaluation.metrics must be a list, not a string"),
    ({**manifest(), "metadata": {"name": "My_Job"}}, "expected lower-case letters, digits, dashes and dots"),
    ({**manifest(), "kind": "GenerativeTrainingJobs"}, 'did you mean "GenerativeTrainingJob"?'),
    ({**manifest(), "spec": 3}, "GTJ0105 spec must be a mapping, not an integer"),
]


@pytest.mark.parametrize(("data", "words"), CASES)
def test_field(data: dict[str, Any], words: str) -> None:
    (line,) = lines(data)
    assert words in line


@pytest.mark.parametrize("data", [None, 3, "text", [], ["a"]])
def test_not_a_mapping(data: Any) -> None:
    (line,) = lines(data)
    assert line.startswith("GTJ0105 the manifest must be a mapping")


def test_empty_mapping_lists_all_that_is_missing() -> None:
    assert [line.split(" (")[0] for line in lines({})] == [
        'GTJ0105 missing field "apiVersion" in the manifest',
        'GTJ0105 missing field "kind" in the manifest',
        'GTJ0105 missing field "metadata" in the manifest',
        'GTJ0105 missing field "spec" in the manifest',
    ]


def test_rules_run_beside_wrong_fields() -> None:
    given = manifest(compute={"workers": 3}, training={"steps": 10, "epochs": 3}, checkpoints={"uri": "s3://bucket"})
    assert sorted(line[:7] for line in lines(given)) == ["GTJ0101", "GTJ0103", "GTJ0107"]


def test_rules_do_not_echo_wrong_fields() -> None:
    """`gan` is misspelt and `workers` is no number: nothing is said about a missing family or about the batch."""
    spec = {
        "gann": {},
        "data": {"source": "builtin:digits"},
        "training": {"steps": 10, "batch": {"global": "x"}},
        "compute": {"workers": 3},
    }
    assert sorted(line[:7] for line in lines({**manifest(), "spec": spec})) == ["GTJ0101", "GTJ0105"]


def test_rules_keep_their_place_in_a_list_with_wrong_fields() -> None:
    env = [{"name": "A", "value": 1}, {"name": "B"}, {"name": "C", "bad": 1}]
    problems = parse(manifest(pod={"env": env}))[1]
    assert [(problem.code, problem.path[3]) for problem in problems] == [("GTJ0105", 0), ("GTJ0101", 2), ("GTJ0108", 1)]


def test_numbers_may_be_whole_where_fractions_are_allowed() -> None:
    job, problems = parse(manifest(training={"steps": 1, "gradientClipping": 1}))
    assert problems == []
    assert job is not None
    assert job.spec.training.gradient_clipping == 1.0
