"""Profiles: what is refused because no pod could follow it, with code and place, and near misses that pass."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.parse import parse_profile
from trainjobs.api.profile import Toleration

GPU = {"perNode": 4}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "selector": ({"selector": {"a b": "x"}}, 'GTJ0102 "a b" is no key of a label (spec.selector.a b)'),
    "head's selector": ({"head": {"selector": {"/pool": "x"}}}, 'GTJ0102 "/pool" is no key of a label (spec.head.selector./pool)'),
    "long domain": ({"selector": {"a" * 254 + "/b": "x"}}, "is no key of a label"),
    "taint": ({"tolerations": [{"key": "gpu"}, {"key": "a/b/c"}]}, 'GTJ0102 "a/b/c" is no key of a taint (spec.tolerations[1].key)'),
    "Exists and a value": (
        {"tolerations": [{"key": "gpu", "operator": "Exists", "value": "true"}]},
        "GTJ0108 a toleration of gpu has operator Exists and a value (spec.tolerations[0])",
    ),
    "resource without domain": ({"accelerator": {**GPU, "resource": "gpu"}}, 'GTJ0102 "gpu" is no resource (spec.accelerator.resource)'),
    "resource of quotas": ({"accelerator": {**GPU, "resource": "requests.nvidia.com/gpu"}}, "is no resource"),
    "image with a space": ({"image": "trainer "}, 'GTJ0102 "trainer " is not allowed for spec.image'),
    "a wrong field beside": ({"selector": {"a b": "x"}, "capacity": "cheap"}, 'GTJ0102 "cheap" is not allowed for spec.capacity'),
}


def said(spec: dict[str, Any]) -> str:
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": "a"}, "spec": spec}
    return "\n".join(problem.error().line() for problem in parse_profile(manifest)[1])


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_pod_can_follow_is_refused(case: str) -> None:
    spec, words = REFUSED[case]
    assert words in said(spec).replace(" that a pod can ask for", "")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"selector": {"a" * 253 + "/b": "", "team": "x", "example.com/a_B.c": "1"}},
        {"tolerations": [{"key": "gpu"}, {"key": "gpu", "value": "true"}, {"key": "nvidia.com/gpu", "operator": "Exists", "value": ""}]},
        {"accelerator": {"perNode": 0, "resource": "none"}},
        {"accelerator": {**GPU, "resource": "amd.com/gpu"}},
        {"image": "registry:5000/a/b@sha256:" + "0" * 64},
    ],
)
def test_near_misses_pass(spec: dict[str, Any]) -> None:
    assert said(spec) == ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"key": "gpu"}, "Exists"),
        ({"key": "gpu", "value": "true"}, "Equal"),
        ({"key": "gpu", "value": ""}, "Equal"),
        ({"key": "gpu", "operator": "Equal"}, "Equal"),
        ({"key": "gpu", "operator": "Exists"}, "Exists"),
    ],
)
def test_what_a_toleration_means(written: dict[str, str], meant: str) -> None:
    assert Toleration.model_validate(written).meant == meant


def test_what_is_no_manifest_is_told() -> None:
    assert parse_profile("text")[1][0].code == "GTJ0105"
