"""Which families, and which data, may have pictures of several shapes."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.job import Spec
from trainjobs.api.metrics import NEVER_HELD
from trainjobs.api.quality import decisive
from trainjobs.api.rule import Breach, Rule

PLACE = ("data", "images", "buckets")


def buckets_fit(spec: Spec) -> Iterator[Breach]:
    if spec.data.images.buckets is None:
        return
    found = _against(spec)
    if found:
        what, why, how = found
        yield Breach(PLACE, f"data.images.buckets with {what}", why, how, on_key=True)


def _against(spec: Spec) -> tuple[str, str, str] | None:
    """What there may be no buckets with, why, and what to do."""
    data, diffusion, out = spec.data, spec.diffusion, "take buckets out"
    alone = len(spec.families) == 1 and spec.custom is None
    if alone and diffusion is None:
        why = {
            "gan": "its generator makes pictures of one size, and its discriminator looks at no others",
            "vae": "its latents are of one size, and so are the pictures that it learns of",
        }.get(str(spec.family), "its pictures are of the size that its encoder was trained with")
        return f"a {spec.family}", why, f"{out}: pictures of other shapes are cropped to squares"
    if diffusion is not None and diffusion.method == "ddpo":
        return "method: ddpo", "it learns of pictures that it draws itself, which are squares", out
    if diffusion is not None and diffusion.pretrained is not None and diffusion.adapted.dreambooth is not None:
        return "dreambooth", "pictures of the class are squares, and pass beside those of the thing", out
    if data.source is None or data.source.startswith("builtin:"):
        what = "what is built in" if data.source else "a mixture"
        why = "its pictures are squares" if data.source else "a micro-batch has samples of several sources, each with its own shapes"
        return what, why, f"{out}, or name one source of pictures"
    if data.curriculum is not None:
        return "data.curriculum", "both say in which order pictures come", "keep one of them"
    if data.on_bad_sample == "skip":
        return "data.onBadSample: skip", "the shape of each picture is looked up before the first step", "use onBadSample: fail"
    if "instance" in spec.evaluation.metrics or NEVER_HELD in decisive(spec):
        return (
            NEVER_HELD,
            "it looks at training pictures in an order of its own, in which those of one shape are not together",
            "keep one of them",
        )
    return None


def sides_are_halved(spec: Spec) -> Iterator[Breach]:
    """What a unet halves so often must divide so often; of latents, and of pipelines, the trainer knows how small they are."""
    buckets, diffusion = spec.data.images.buckets, spec.diffusion
    if buckets is None or diffusion is None or diffusion.latents is not None or diffusion.pretrained is not None:
        return
    unit = 1 << (len(diffusion.network.multipliers) - 1)
    if diffusion.network.architecture == "unet" and buckets.step % unit:
        what = f"a step of {buckets.step} with a unet that halves pictures {len(diffusion.network.multipliers) - 1} times"
        why = "each side must divide as often, and sides are multiples of step"
        yield Breach((*PLACE, "step"), what, why, f"write a multiple of {unit}, or give the unet fewer multipliers")


_INSTANCE = " || ".join(
    [
        "'instance' in self.evaluation.metrics",
        f"(has(self.checkpoints.keep.best) && self.checkpoints.keep.best.metric == '{NEVER_HELD}')",
        f"(self.training.schedule.name == 'plateau' && self.training.schedule.metric == '{NEVER_HELD}')",
        f"(has(self.training.earlyStopping) && self.training.earlyStopping.metric == '{NEVER_HELD}')",
    ]
)

RULES = (
    Rule(
        "spec",
        "GTJ0108",
        buckets_fit,
        "!has(self.data.images.buckets) || ((has(self.custom) || has(self.diffusion)) && (!has(self.diffusion) || "
        "(self.diffusion.method != 'ddpo' && "
        "!(has(self.diffusion.pretrained) && has(self.diffusion.adapt) && has(self.diffusion.adapt.dreambooth)))) && "
        "has(self.data.source) && !self.data.source.startsWith('builtin:') && !has(self.data.curriculum) && "
        f"self.data.onBadSample != 'skip' && !({_INSTANCE}))",
        "data.images.buckets is for a diffusion model, without ddpo and dreambooth, on one source of pictures, without a curriculum, "
        "onBadSample: skip and heldout/instance",
    ),
    Rule(
        "spec",
        "GTJ0108",
        sides_are_halved,
        "!has(self.data.images.buckets) || !has(self.diffusion) || has(self.diffusion.latents) || has(self.diffusion.pretrained) || "
        "self.diffusion.network.architecture != 'unet' || "
        "self.data.images.buckets.step % [1, 1, 2, 4, 8, 16, 32][self.diffusion.network.multipliers.size()] == 0",
        "data.images.buckets.step must be a multiple of what the unet's halvings make one: 2 for each multiplier after the first",
    ),
)
