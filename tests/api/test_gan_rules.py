"""Which loss of a GAN goes with which addition: the whole table, each pair asked."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.gan import LEARNS, GanLoss
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


# What is added, and the networks that it goes with.
TO_NETWORKS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "classes": ({"conditional": True}, {"dcgan", "sagan", "stylegan2"}),
    "growing": ({"progressive": {"start": 4}}, {"pggan"}),
    "path length": ({"regularization": {"pathLength": {}}}, {"stylegan2"}),
    "orthogonal": ({"regularization": {"orthogonal": 0.0001}}, {"dcgan", "mlp", "sagan"}),
    "r1": ({"regularization": {"r1": {}}}, {"dcgan", "mlp", "pggan", "sagan", "stylegan2"}),
    "minibatch deviation": ({"discriminator": {"minibatchDeviation": {"group": 2}}}, {"dcgan", "mlp", "pggan", "sagan", "stylegan2"}),
    "diffaug": ({"augment": {}}, {"dcgan", "pggan", "sagan", "stylegan2"}),
    "ada": ({"augment": {"type": "ada"}}, {"dcgan", "pggan", "sagan", "stylegan2"}),
    "attention, generator": ({"generator": {"attention": [8]}}, {"dcgan", "sagan"}),
    "attention, discriminator": ({"discriminator": {"attention": [8]}}, {"dcgan", "sagan"}),
    "spectral norm, generator": ({"generator": {"spectralNorm": True}}, {"dcgan", "mlp"}),
    "spectral norm, discriminator": ({"discriminator": {"spectralNorm": True}}, {"dcgan", "mlp"}),
    "batch norm, discriminator": ({"discriminator": {"normalization": "batch"}}, {"dcgan", "mlp"}),
    "style mixing": ({"generator": {"styleMixing": 0.5}}, {"stylegan2"}),
    "truncation": ({"generator": {"truncation": 0.5}}, {"stylegan2"}),
}


@pytest.mark.parametrize("architecture", sorted(LEARNS))
@pytest.mark.parametrize("added", TO_NETWORKS)
def test_an_addition_goes_with_a_network_or_is_refused(added: str, architecture: str) -> None:
    parts, goes = TO_NETWORKS[added]
    own = {"architecture": architecture}
    gan = {**parts, "generator": {**own, **parts.get("generator", {})}, "discriminator": {**own, **parts.get("discriminator", {})}}
    data = {"source": "builtin:ring" if architecture == "mlp" else "builtin:digits"}
    training = {"steps": 1, "batch": {"global": 8, "micro": 4}, "optimizers": {"default": {"name": "adam"}}}
    spec = {"gan": gan, "data": data, "training": training, "compute": {"workers": 1}}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    problems = [problem.error() for problem in parse(manifest)[1]]
    assert [problem.code for problem in problems] == ([] if architecture in goes else ["GTJ0108"])
    assert all(problem.why or problem.how for problem in problems)


STYLES = {"generator": {"architecture": "stylegan2"}, "discriminator": {"architecture": "stylegan2"}}
SAGAN = {"generator": {"architecture": "sagan"}, "discriminator": {"architecture": "sagan"}}
PGGAN = {"generator": {"architecture": "pggan"}, "discriminator": {"architecture": "pggan"}}
PATH = {"regularization": {"pathLength": {}}}


@pytest.mark.parametrize(
    ("gan", "training", "codes"),
    [
        ({**STYLES, **PATH}, {}, []),
        (PATH, {}, ["GTJ0108"]),  # a DCGAN has no styles
        ({**STYLES, "regularization": {"orthogonal": 0.0001}}, {}, ["GTJ0108"]),
        ({**STYLES, "discriminator": {"architecture": "stylegan2", "spectralNorm": True}}, {}, ["GTJ0108"]),
        ({**STYLES, "generator": {"architecture": "stylegan2", "attention": [8]}}, {}, ["GTJ0108"]),
        ({"generator": {"styleMixing": 0.5}}, {}, ["GTJ0108"]),
        ({"generator": {"truncation": 0.7}}, {}, ["GTJ0108"]),
        ({"generator": {"architecture": "stylegan2"}}, {}, ["GTJ0108"]),
        ({"conditional": True}, {}, []),
        ({**STYLES, "conditional": True}, {}, []),
        ({**SAGAN, "conditional": True}, {}, []),
        ({**PGGAN, "conditional": True}, {}, ["GTJ0108"]),  # nowhere does a class come in
        ({"generator": {"normalization": "none"}, "conditional": True}, {}, ["GTJ0108"]),
        (SAGAN, {}, []),
        ({**SAGAN, "generator": {"architecture": "sagan", "normalization": "none"}}, {}, []),
        ({**SAGAN, "generator": {"architecture": "sagan", "normalization": "none"}, "conditional": True}, {}, ["GTJ0108"]),
        ({**SAGAN, "discriminator": {"architecture": "sagan", "attention": [64]}}, {}, ["GTJ0108"]),  # of 64 there is no map
        ({**SAGAN, **PATH}, {}, ["GTJ0108"]),
        ({**PGGAN, "progressive": {}}, {}, []),
        ({**PGGAN, "progressive": {}}, {"optimizers": {"default": {"name": "sgd"}}}, []),
        ({"progressive": {}}, {}, ["GTJ0108"]),  # its layers are there from the start
        ({**PGGAN, "progressive": {"start": 64}}, {}, ["GTJ0108"]),
        ({**PGGAN, "regularization": {"orthogonal": 0.0001}}, {}, ["GTJ0108"]),
        ({**STYLES, **PATH}, {"batch": {"global": 6, "micro": 3}}, ["GTJ0103"]),
        ({**STYLES, "regularization": {"pathLength": {"batchShrink": 1}}}, {"batch": {"global": 6, "micro": 3}}, []),
        ({**STYLES, **PATH}, {"optimizers": {"generator": {"name": "sgd"}}}, ["GTJ0108"]),
        ({**STYLES, "regularization": {"pathLength": {"every": 1}}}, {"optimizers": {"generator": {"name": "sgd"}}}, []),
        ({"augment": {"type": "ada"}}, {}, []),
        ({"augment": {"type": "ada"}, "loss": {"type": "wgan"}}, {}, ["GTJ0108"]),
        ({"augment": {"type": "ada", "pipeline": ["geom", "geom"]}}, {}, ["GTJ0102"]),
        ({"augment": {"type": "ada", "policy": ["color"]}}, {}, ["GTJ0108"]),
        ({"augment": {"target": 0.5}}, {}, ["GTJ0108"]),
    ],
)
def test_styles_and_adaptive_augmentation_have_their_place(gan: dict[str, Any], training: dict[str, Any], codes: list[str]) -> None:
    compute = {"workers": 1}
    spec = {"gan": gan, "data": {"source": "builtin:digits"}, "training": {"steps": 1, **training}, "compute": compute}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    assert [problem.error().code for problem in parse(manifest)[1]] == codes
