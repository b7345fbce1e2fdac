"""What does not go with latents is refused, with the reason; what does is not."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.parse import parse

LATENTS = {"autoencoder": "file:///models/vae"}
FITS = {"schedule": "scaled-linear"}


def problems(family: dict[str, Any], more: dict[str, Any] | None = None, images: dict[str, Any] | None = None) -> list[str]:
    data = {"source": "builtin:shapes", "images": images or {}}
    spec = {**family, "data": data, "training": {"steps": 1}, **(more or {})}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    found = [problem.error() for problem in parse(manifest)[1]]
    assert all(problem.why or problem.how for problem in found)
    return [f"{problem.code} {problem.where}" for problem in found]


def latent(process: dict[str, Any] | None = None, **latents: Any) -> dict[str, Any]:
    return {"diffusion": {"latents": {**LATENTS, **latents}, "process": process or FITS}}


@pytest.mark.parametrize(
    ("uri", "fits"),
    [
        ("file:///runs/vae", True),
        ("s3://bucket/vae", True),
        ("hf://org/name", True),
        ("hf://org/name@v1.0", True),
        ("hf://org", False),
        ("hf://datasets/org/name", False),
        ("file://./vae", False),
        ("s3://user@bucket/vae", False),
        ("file:///a/../vae", False),
    ],
)
def test_an_autoencoder_lies_somewhere(uri: str, fits: bool) -> None:
    assert problems(latent(autoencoder=uri)) == ([] if fits else ["GTJ0107 spec.diffusion.latents.autoencoder"])


@pytest.mark.parametrize("change", ["rotation", "randomCrop", "colorJitter"])
def test_kept_latents_are_those_of_pictures_that_do_not_change(change: str) -> None:
    images = {"augment": ["horizontalFlip", change]}
    assert problems(latent(), images=images) == ["GTJ0108 spec.data.images.augment[1]"]
    assert problems(latent(cache=False), images=images) == []
    assert problems(latent(), images={"augment": ["horizontalFlip"]}) == []


@pytest.mark.parametrize(
    ("process", "where"),
    [
        ({}, "process.schedule"),
        ({"prediction": "epsilon", "schedule": "cosine"}, "process.schedule"),
        ({"schedule": "learned"}, "process.schedule"),
        ({"schedule": "linear", "learnedVariance": True}, "process.learnedVariance"),
        ({"prediction": "v"}, ""),
        ({"prediction": "flow"}, ""),
        ({"schedule": "linear"}, ""),
        ({"prediction": "v", "zeroTerminalSnr": True, "minSnrGamma": 5}, ""),
    ],
)
def test_what_is_of_pixels_is_refused(process: dict[str, Any], where: str) -> None:
    assert problems({"diffusion": {"latents": LATENTS, "process": process}}) == ([f"GTJ0108 spec.diffusion.{where}"] if where else [])


def test_latents_have_no_bound() -> None:
    assert problems(latent(), {"evaluation": {"metrics": ["bits"]}}) == ["GTJ0108 spec.evaluation.metrics"]
    kept = {"checkpoints": {"keep": {"best": {"metric": "heldout/bits"}}}}
    assert problems(latent(), kept) == ["GTJ0108 spec.checkpoints.keep.best.metric"]


def test_sizes_of_a_denoiser_are_left_to_the_latents() -> None:
    network = {"network": {"multipliers": [1, 2, 4, 4, 4, 4]}}
    assert problems({"diffusion": {**latent()["diffusion"], **network}}, images={"size": 32}) == []
    assert problems({"diffusion": network}, images={"size": 32}) == ["GTJ0108 spec.diffusion.network.multipliers"]


@pytest.mark.parametrize(
    ("network", "images", "loss", "where"),
    [
        ({}, {"size": 32}, {}, ""),
        ({}, {"size": 16}, {}, ""),
        ({}, {"size": 8}, {}, "network.multipliers"),  # latents of one pixel
        ({"channels": 24}, {}, {}, "network.groups"),
        ({"channels": 24, "groups": 8}, {}, {}, ""),
        ({"latentDim": 8}, {}, {}, "network.latentDim"),
        ({"layers": 3}, {}, {}, "network.layers"),
        ({}, {}, {"reconstruction": "bce"}, "loss.reconstruction"),
        ({}, {}, {"reconstruction": "l1"}, ""),
    ],
)
def test_an_autoencoder_kl_fits_its_pictures(network: dict[str, Any], images: dict[str, Any], loss: dict[str, Any], where: str) -> None:
    family = {"vae": {"network": {"architecture": "autoencoder-kl", **network}, "loss": loss}}
    assert problems(family, images=images) == ([f"GTJ0108 spec.vae.{where}"] if where else [])


def test_only_an_autoencoder_kl_has_its_fields() -> None:
    family = {"vae": {"network": {"latentChannels": 8, "multipliers": [1], "blocks": 1, "groups": 1, "attention": False}}}
    named = [f"GTJ0108 spec.vae.network.{name}" for name in ("multipliers", "blocks", "latentChannels", "groups", "attention")]
    assert sorted(problems(family)) == sorted(named)
