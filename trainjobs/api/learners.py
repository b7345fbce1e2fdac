"""Which network learns from what: rules between a family and its data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from trainjobs.api import gan, vae
from trainjobs.api.data import Images, Text
from trainjobs.api.denoiser import ATTENTION_FITS, RESOLUTIONS_FIT, attention_has_place, resolutions_fit
from trainjobs.api.fields import Model
from trainjobs.api.job import Spec
from trainjobs.api.only import untouched
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.shape import Path
from trainjobs.api.uris import BUILTINS, builtin

HALVING = ("dcgan", "stylegan2", "conv")
POWERS = (8, 16, 32, 64, 128, 256, 512, 1024)


def family_fits_data(family: str, spec: Spec) -> Iterator[Breach]:
    """Language learns from text, mlp networks from points, every other network from images."""
    name = builtin(spec.data.uri)
    kind = BUILTINS.get(name, "") if name else "other"
    for path, architecture, wanted in learners(spec):
        if path[0] == family and kind and kind != wanted and not (kind == "other" and wanted != "point"):
            good = [f"builtin:{known}" for known, its in BUILTINS.items() if its == wanted] + (
                ["a file:// folder"] if wanted != "point" else []
            )
            have = f"{spec.data.uri} holds {kind}s" if kind != "other" else "points come from builtin:ring only"
            other = architecture_for(spec, kind if kind != "other" else "image")
            swap = f", or architecture: {other}" if other else ""
            yield Breach(path, f"{architecture} learns from {wanted}s", have, f"use data.source: {listed(good)}{swap}")


def learners(spec: Spec) -> Iterator[tuple[Path, str, str]]:
    """Path, architecture and kind of data of each network that sees data."""
    if spec.gan is not None:
        generator, discriminator = spec.gan.generator.architecture, spec.gan.discriminator.architecture
        yield ("gan", "generator", "architecture"), generator, gan.LEARNS[generator]
        if discriminator == generator:  # otherwise gan.networks_agree speaks
            yield ("gan", "discriminator", "architecture"), discriminator, gan.LEARNS[discriminator]
    if spec.vae is not None:
        yield ("vae", "network", "architecture"), spec.vae.network.architecture, vae.LEARNS[spec.vae.network.architecture]
    if spec.diffusion is not None:
        yield ("diffusion",), f"the {spec.diffusion.network.architecture} of a diffusion model", "image"
    if spec.language is not None:
        pictures = spec.language.task == "caption"
        yield ("language",), "a captioner" if pictures else "a language model", "image" if pictures else "text"


def architecture_for(spec: Spec, kind: str) -> str | None:
    """The architecture of the same family that learns from such data."""
    known = gan.LEARNS if spec.gan is not None else vae.LEARNS if spec.vae is not None else {}
    return next((architecture for architecture, its in known.items() if its == kind), None)


def images_are_looked_at(spec: Spec) -> Iterator[Breach]:
    return left_alone("images", "image", spec.data.images != Images(), spec)


def text_is_read(spec: Spec) -> Iterator[Breach]:
    return left_alone("text", "text", spec.data.text != Text(), spec)


def left_alone(field: str, kind: str, changed: bool, spec: Spec) -> Iterator[Breach]:
    """That a part of spec.data is as it was where the family learns from something else."""
    wanted = {its for _, _, its in learners(spec)}
    if changed and wanted and kind not in wanted:
        what = f"spec.data.{field} with a model of {wanted.pop()}s"
        yield Breach(("data", field), what, how=f"take spec.data.{field} out", on_key=True)


def halvings_fit(spec: Spec) -> Iterator[Breach]:
    if spec.diffusion is not None and spec.diffusion.latents is None:  # of latents the trainer knows the size
        for breach in resolutions_fit(spec.diffusion.network, spec.data.images.size):
            yield breach.within("diffusion", "network")


def attention_fits(spec: Spec) -> Iterator[Breach]:
    if spec.diffusion is not None and spec.diffusion.latents is None:
        for breach in attention_has_place(spec.diffusion.network, spec.data.images.size):
            yield breach.within("diffusion", "network")


def sizes_are_halved(spec: Spec) -> Iterator[Breach]:
    """Some networks halve pictures down to 4 pixels."""
    size = spec.data.images.size
    for path, architecture, _ in learners(spec):
        if architecture in HALVING and size not in POWERS:
            above, below = min(power for power in POWERS if power > size), max(power for power in POWERS if power < size)
            what, why = f"{architecture} with images of {size} pixels", "it halves them down to 4 pixels"
            how = f"nearest sizes that can be: {below} and {above}"
            yield Breach(("data", "images", "size"), what, why, how, beside=path)
            return


def latents_fit(spec: Spec) -> Iterator[Breach]:
    """Pictures of autoencoder-kl are halved so often, and something is left of them."""
    if spec.vae is None or spec.vae.network.architecture != vae.KL:
        return
    size, factor = spec.data.images.size, spec.vae.network.factor
    if size % factor or size // factor < 2:
        what = f"{len(spec.vae.network.multipliers)} multipliers make pictures of {size} pixels {factor} times smaller"
        why = f"they do not divide by {factor}" if size % factor else "a latent must keep 2 pixels a side"
        how = "use fewer multipliers, or larger images"
        yield Breach(("vae", "network", "multipliers"), what, why, how, beside=("data", "images", "size"))


def prompts_are_drawn(spec: Spec) -> Iterator[Breach]:
    """Prompts say what samples are drawn for."""
    if spec.evaluation.prompts and spec.custom is None and not _told(spec):
        how = "add diffusion.conditioning or gan.conditional, or take prompts out"
        yield Breach(("evaluation", "prompts"), "evaluation.prompts without a condition", "samples are drawn for nothing", how, on_key=True)


def _told(spec: Spec) -> bool:
    """Whether its model draws for something."""
    if spec.diffusion is not None:
        return spec.diffusion.conditioning is not None or spec.diffusion.pretrained is not None
    return spec.gan is not None and spec.gan.conditional


def holding(kind: str, *, other: bool = False) -> list[str]:
    """The built-in data of a kind, or all `other`."""
    return [f"builtin:{name}" for name, its in BUILTINS.items() if (its == kind) != other]


def suits(architecture: str, known: dict[str, str]) -> str:
    """In CEL, that the data are of the kind that the architecture learns from; a folder may hold images."""
    points = [name for name, kind in known.items() if kind == "point"]
    return f"({architecture} in {points} ? has(self.data.source) && self.data.source in {holding('point')} : {_IMAGES})"


def _unchanged(field: str, plain: Model) -> str:
    return " && ".join(untouched(f"self.data.{field}", plain, type(plain), ()))


_IMAGES = f"!(has(self.data.source) && self.data.source in {holding('image', other=True)})"
_CAPTIONS = "self.language.task == 'caption'"
_LEARN = {  # family: that its data are of the right kind, in CEL and in words
    "gan": (
        f"[self.gan.generator.architecture, self.gan.discriminator.architecture].all(a, {suits('a', gan.LEARNS)})",
        "mlp learns from points (builtin:ring), every other architecture from images",
    ),
    "vae": (
        suits("self.vae.network.architecture", vae.LEARNS),
        "mlp learns from points (builtin:ring), every other architecture from images",
    ),
    "diffusion": (_IMAGES, "a diffusion model learns from images"),
    "language": (
        f"!has(self.data.source) || !(self.data.source in ({_CAPTIONS} ? {holding('image', other=True)} : {holding('text', other=True)}))",
        "a language model learns from text, a captioner from images",
    ),
}
_LOOKED_AT = " || ".join(
    f"(has(self.{family}) && {network} in {[name for name, kind in known.items() if kind == 'image']})"
    for family, network, known in (
        ("vae", "self.vae.network.architecture", vae.LEARNS),
        ("gan", "self.gan.generator.architecture", gan.LEARNS),
        ("gan", "self.gan.discriminator.architecture", gan.LEARNS),
    )
)

RULES = (
    *(
        Rule("spec", "GTJ0108", partial(family_fits_data, family), f"!has(self.{family}) || {fits}", words)
        for family, (fits, words) in _LEARN.items()
    ),
    Rule(
        "spec",
        "GTJ0108",
        images_are_looked_at,
        f"has(self.custom) || has(self.diffusion) || (has(self.language) && {_CAPTIONS}) || {_LOOKED_AT} || "
        f"({_unchanged('images', Images())})",
        "data.images has no effect: the model does not learn from images",
    ),
    Rule(
        "spec",
        "GTJ0108",
        text_is_read,
        f"has(self.custom) || (has(self.language) && !({_CAPTIONS})) || ({_unchanged('text', Text())})",
        "data.text has no effect: the model does not learn from text",
    ),
    Rule(
        "spec",
        "GTJ0108",
        halvings_fit,
        f"!has(self.diffusion) || has(self.diffusion.latents) || ({RESOLUTIONS_FIT})",
        "too many multipliers for data.images.size: the lowest resolution must keep 2 pixels a side; a patch must be smaller than an image",
    ),
    Rule(
        "spec",
        "GTJ0108",
        attention_fits,
        f"!has(self.diffusion) || has(self.diffusion.latents) || {ATTENTION_FITS}",
        "attentionResolutions: the unet's maps have data.images.size, and half of that for each further multiplier; each once",
    ),
    Rule(
        "spec",
        "GTJ0108",
        sizes_are_halved,
        f"self.data.images.size in {list(POWERS)} || has(self.custom) || has(self.diffusion) || has(self.language) || "
        f"(has(self.vae) && !(self.vae.network.architecture in {list(HALVING)})) || "
        f"(has(self.gan) && !(self.gan.generator.architecture in {list(HALVING)}))",
        "dcgan, stylegan2 and conv halve pictures down to 4 pixels: data.images.size must be a power of two",
    ),
    Rule(
        "spec",
        "GTJ0108",
        latents_fit,
        f"!has(self.vae) || self.vae.network.architecture != '{vae.KL}' || [1, 2, 4, 8, 16, 32].exists(f, "
        "f == [1, 2, 4, 8, 16, 32][self.vae.network.multipliers.size() - 1] && self.data.images.size % f == 0 && "
        "self.data.images.size >= 2 * f)",
        "autoencoder-kl halves pictures once for each multiplier but the first: data.images.size must divide, and 2 pixels must be left",
    ),
    Rule(
        "spec",
        "GTJ0108",
        prompts_are_drawn,
        "size(self.evaluation.prompts) == 0 || has(self.custom) || (has(self.diffusion) && "
        "(has(self.diffusion.conditioning) || has(self.diffusion.pretrained))) || (has(self.gan) && self.gan.conditional)",
        "evaluation.prompts without diffusion.conditioning or gan.conditional: samples are drawn for nothing",
    ),
)
