"""Which loss of a GAN goes with which addition: the whole table, each pair asked."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.gan import GanLoss
from trainjobs.api.parse import parse
from trainjobs.api.shape import literals

# What is added, and the losses that it goes with.
ADDED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "r1": ({"regularization": {"r1": {"every": 1}}}, {"bce", "minimax", "lsgan", "hinge"}),
    "lazy r1": ({"regularization": {"r1": {}}}, {"bce", "minimax", "lsgan", "hinge"}),
    "orthogonal": ({"regularization": {"orthogonal": 0.0001}}, {"bce", "minimax", "lsgan", "hinge", "wgan", "wgan-gp"}),
    "gradient penalty": ({"loss": {"gradientPenalty": 5.0}}, {"wgan-gp"}),
    "weight clipping": ({"loss": {"weightClip": 0.02}}, {"wgan"}),
    "drift": ({"loss": {"drift": 0.001}}, {"wgan", "wgan-gp"}),
    "label": ({"loss": {"realLabel": 0.9}}, {"bce", "minimax", "lsgan"}),
    "spectral norm": ({"discriminator": {"spectralNorm": True}}, {"bce", "minimax", "lsgan", "hinge", "wgan-gp"}),
    "batch norm": ({"discriminator": {"normalization": "batch"}}, {"bce", "minimax", "lsgan", "hinge", "wgan"}),
    "augmentation": ({"augment": {}}, {"bce", "minimax", "lsgan", "hinge", "wgan", "wgan-gp"}),
}
LOSSES = sorted(literals(GanLoss.model_fields["type"].annotation))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("added", ADDED)
def test_a_pair_goes_together_or_is_refused(added: str, kind: str) -> None:
    parts, goes = ADDED[added]
    gan = {**parts, "loss": {"type": kind, **parts.get("loss", {})}}
    optimizers = {"default": {"name": "adam"}}
    spec = {"gan": gan, "data": {"source": "builtin:digits"}, "training": {"steps": 1, "optimizers": optimizers}}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    problems = [problem.error() for problem in parse(manifest)[1]]
    assert [problem.code for problem in problems] == ([] if kind in goes else ["GTJ0108"])
    assert all(problem.why or problem.how for problem in problems)
