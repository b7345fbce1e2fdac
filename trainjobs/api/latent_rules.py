"""Rules of latent diffusion, and of what does not go with latents."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api import latents
from trainjobs.api.diffusion import Diffusion
from trainjobs.api.job import Spec
from trainjobs.api.latents import KEPT
from trainjobs.api.rule import Breach, Rule


def kept_pictures_stay(spec: Spec) -> Iterator[Breach]:
    """Latents of a picture that is moved, turned or coloured are others, each time."""
    if spec.diffusion is None or spec.diffusion.latents is None or not spec.diffusion.latents.cache:
        return
    for number, change in enumerate(spec.data.images.augment):
        if change not in KEPT:
            why = "a picture that was changed has other latents, and those that are kept were made once; flipped ones are kept, too"
            how = f"set diffusion.latents.cache: false, or take {change} out"
            yield Breach(("data", "images", "augment", number), f"{change} with cached latents", why, how)


def latents_are_no_pixels(diffusion: Diffusion) -> Iterator[Breach]:
    if diffusion.latents is None:
        return
    if diffusion.process.learned_variance:
        why = "it is learned by a bound on the likelihood of 8-bit pixels"
        yield Breach(("process", "learnedVariance"), "learnedVariance with latents", why, "take learnedVariance out", on_key=True)
    if diffusion.process.schedule == "learned":
        why = "its loss is a bound on the likelihood of 8-bit pixels"
        how = "use schedule: scaled-linear, or prediction: flow"
        yield Breach(("process", "schedule"), "schedule: learned with latents", why, how)


def latents_are_not_clipped(diffusion: Diffusion) -> Iterator[Breach]:
    process = diffusion.process
    if diffusion.latents is not None and process.prediction == "epsilon" and process.schedule == "cosine":
        why = "sampling begins with x_0 = (x_t - s_t eps) / a_t, where a_t is below 1e-4, and latents have no bounds to clip that to"
        how = "use schedule: scaled-linear, which is Stable Diffusion's, or another prediction"
        yield Breach(("process", "schedule"), "prediction: epsilon and schedule: cosine with latents", why, how)


RULES = (
    Rule(
        "spec.diffusion.latents.autoencoder",
        "GTJ0107",
        latents.lies_somewhere,
        latents.USABLE,
        "not a usable URI: a folder in a bucket, an absolute path, or hf://organisation/name[@revision]",
    ),
    Rule(
        "spec",
        "GTJ0108",
        kept_pictures_stay,
        "!has(self.diffusion) || !has(self.diffusion.latents) || !self.diffusion.latents.cache || "
        f"self.data.images.augment.all(change, change in {list(KEPT)})",
        "cached latents are those of pictures as they are, or flipped: set latents.cache: false for other changes of data.images.augment",
    ),
    Rule(
        "spec.diffusion",
        "GTJ0108",
        latents_are_no_pixels,
        "!has(self.latents) || (!self.process.learnedVariance && self.process.schedule != 'learned')",
        "learnedVariance and schedule: learned with latents: both are learned by a bound on the likelihood of 8-bit pixels",
    ),
    Rule(
        "spec.diffusion",
        "GTJ0108",
        latents_are_not_clipped,
        "!has(self.latents) || self.process.prediction != 'epsilon' || self.process.schedule != 'cosine'",
        "prediction: epsilon and schedule: cosine with latents, which cannot be clipped: use scaled-linear or another prediction",
    ),
)
