"""Which curriculum goes with which family and data."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.job import Spec
from trainjobs.api.rule import Breach, Rule


def curriculum_fits(spec: Spec) -> Iterator[Breach]:
    curriculum = spec.data.curriculum
    if curriculum is None:
        return
    place, language, alone = ("data", "curriculum", "by"), spec.language is not None, len(spec.families) == 1 and spec.custom is None
    if spec.data.sources:
        why = "each source of a mixture goes through its own samples"
        yield Breach(("data", "curriculum"), "a curriculum of a mixture", why, "take it out, or name one source", on_key=True)
    elif spec.diffusion is not None and spec.diffusion.latents is not None:
        why = "latents are kept as they are encoded, and in the data's own order"
        yield Breach(("data", "curriculum"), "a curriculum of latents", why, "take it out, or train pixels", on_key=True)
    elif alone and curriculum.by == "length" and (not language or spec.language is None or spec.language.packing != "none"):
        why = "lengths are those of records, each of which is a sample"
        yield Breach(place, "by: length", why, "write `language: {packing: none}`, or order by something else")
    elif alone and curriculum.by == "column" and (language or spec.data.source is None or spec.data.source.startswith("builtin:")):
        why = "columns are those of a table that stands beside pictures"
        yield Breach(place, "by: column", why, "use by: length for a language model, by: resolution for what is built in")
    elif alone and curriculum.by == "resolution" and (spec.diffusion is None or spec.diffusion.network.architecture != "unet"):
        why = "only the unet of a diffusion model takes pictures of any size"
        yield Breach(place, "by: resolution", why, "use a diffusion model with a unet, or order by something else")
    elif alone and curriculum.by == "resolution" and spec.diffusion is not None:
        least = 2 ** len(spec.diffusion.network.multipliers)
        if not least <= curriculum.size < spec.data.images.size:
            count, size = len(spec.diffusion.network.multipliers), spec.data.images.size
            why = f"{count} multipliers need {least} pixels, and the pictures have {size}"
            how = f"write {least} to {size // 2}, or larger pictures" if least < size else "give fewer multipliers, or larger pictures"
            yield Breach(("data", "curriculum", "size"), f"a first size of {curriculum.size}", why, how, beside=place)


_HALVED = "[1, 2, 4, 8, 16, 32, 64, 128][self.diffusion.network.multipliers.size()]"
RULES = (
    Rule(
        "spec",
        "GTJ0108",
        curriculum_fits,
        "!has(self.data.curriculum) || (self.data.sources.size() == 0 && !(has(self.diffusion) && has(self.diffusion.latents)) && "
        "(has(self.custom) || (self.data.curriculum.by == 'length' ? has(self.language) && self.language.packing == 'none' : "
        "self.data.curriculum.by == 'column' ? !has(self.language) && has(self.data.source) && !self.data.source.startsWith('builtin:') : "
        "has(self.diffusion) && self.diffusion.network.architecture == 'unet' && "
        f"{_HALVED} <= self.data.curriculum.size && self.data.curriculum.size < self.data.images.size)))",
        "a curriculum by length needs language.packing: none, by column pictures of your own, by resolution a diffusion model's unet and a "
        "size between what it halves and data.images.size; a mixture and latents have none",
    ),
)
