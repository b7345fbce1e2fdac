"""Rules of a pretrained pipeline, and of what stands beside it in a manifest."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api import uris
from trainjobs.api.denoiser import Conditioning, Denoiser
from trainjobs.api.diffusion import Diffusion, DiffusionProcess
from trainjobs.api.diffusion_pretrained import Adapt
from trainjobs.api.job import Spec
from trainjobs.api.only import touched, untouched
from trainjobs.api.pretrained import HUB
from trainjobs.api.pretrained_rules import revision_is_the_hub_s, source_lies_somewhere
from trainjobs.api.rule import Breach, Rule

_TOLD = ("prediction", "minSnrGamma", "timeSampling")  # of a process, what counts beside a pipeline
_OWN = ("width", "layers", "heads")  # of a text encoder that is trained from the start


def pipeline_or_network(diffusion: Diffusion) -> Iterator[Breach]:
    """The pipeline brings its network, its process and its text encoders; defaults never offend."""
    if diffusion.pretrained is None:
        if diffusion.adapt is not None:
            what = "adapt without pretrained"
            if diffusion.adapt.dreambooth is not None:
                what = "DreamBooth without a pretrained pipeline"
            how = "name a pipeline in diffusion.pretrained.source"
            yield Breach(("adapt",), what, "it changes a pipeline that was trained before", how, on_key=True)
        return
    for path in touched(diffusion.network, Denoiser(), (), ("network",)):
        yield Breach(path, f"{path[-1]} beside pretrained", "the network is the pipeline's", "keep one of them", on_key=True)
    for path in touched(diffusion.process, DiffusionProcess(), (), ("process",)):
        if path[-1] not in _TOLD:
            why = "what noise is added, and how, is the pipeline's"
            yield Breach(path, f"{path[-1]} beside pretrained", why, f"take {path[-1]} out", on_key=True)
    if diffusion.latents is not None:
        why = "a pipeline has its own autoencoder"
        yield Breach(("latents",), "latents beside pretrained", why, "keep one of them", on_key=True)
    if diffusion.method != "denoising":
        yield Breach(("method",), "ddpo beside pretrained", "its steps are those of pixels", "take one of them out")
    given = diffusion.conditioning
    if given is None:
        return
    if given.type != "text":
        why = "pipelines draw for texts"
        yield Breach(("conditioning", "type"), "conditioning.type: class beside pretrained", why, "use text, or take conditioning out")
    for path in touched(given, Conditioning(type=given.type), (), ("conditioning",)):
        if path[-1] in _OWN:
            why = "the text encoders are the pipeline's"
            yield Breach(path, f"{path[-1]} beside pretrained", why, f"take {path[-1]} out", on_key=True)
    if diffusion.adapt is not None and not diffusion.adapt.captioned:
        other = "dreambooth" if diffusion.adapt.dreambooth else "textualInversion"
        why = f"what pictures are trained with are the prompts of adapt.{other}"
        yield Breach(("conditioning",), f"conditioning beside adapt.{other}", why, "take conditioning out", on_key=True)


def the_word_is_given(adapt: Adapt) -> Iterator[Breach]:
    if adapt.type == "textual-inversion" and adapt.textual_inversion is None:
        how = "write placeholder and initializer in adapt.textualInversion"
        yield Breach(("type",), "type: textual-inversion without a word to learn", how=how, on_key=True)


def one_beginning(spec: Spec) -> Iterator[Breach]:
    if spec.diffusion is None or spec.diffusion.pretrained is None:
        return
    if spec.training.initial_weights is not None:
        what, why = "training.initialWeights beside diffusion.pretrained", "both say which weights the run begins with"
        yield Breach(("training", "initialWeights"), what, why, "keep one of them", on_key=True)
    if spec.data.curriculum is not None:
        what, why = "data.curriculum beside diffusion.pretrained", "a pipeline draws pictures of one size, in the data's own order"
        yield Breach(("data", "curriculum"), what, why, "take curriculum out", on_key=True)
    if spec.training.distillation is not None:
        what, why = "training.distillation beside diffusion.pretrained", "a teacher is a network of Gentrain's own kind"
        yield Breach(("training", "distillation"), what, why, "keep one of them", on_key=True)


def _rules() -> tuple[Rule, ...]:
    network = untouched("self.network", Denoiser(), Denoiser, ())
    process = [
        part
        for part in untouched("self.process", DiffusionProcess(), DiffusionProcess, ())
        if not any(f"self.process.{name}" in part for name in _TOLD)
    ]
    text = [
        part
        for part in untouched("self.conditioning", Conditioning(type="text"), Conditioning, ())
        if any(f"self.conditioning.{name} " in part for name in _OWN)
    ]
    own = " && ".join([*network, *process])
    told = f"(self.conditioning.type == 'text' && {' && '.join(text)})"
    captioned = "(!has(self.adapt) || (!has(self.adapt.dreambooth) && !has(self.adapt.textualInversion)))"
    return (
        Rule(
            "spec.diffusion.pretrained.source",
            "GTJ0107",
            source_lies_somewhere,
            f"self.startsWith('hf://') ? self.matches(r'{HUB}') && {uris.CLEAN} : {uris.SOURCE.partition(' : ')[2]}",
            "not a usable URI: hf://organisation/name, a folder in a bucket or an absolute path",
        ),
        Rule(
            "spec.diffusion.pretrained",
            "GTJ0108",
            revision_is_the_hub_s,
            "!has(self.revision) || self.source.startsWith('hf://')",
            "revision beside a folder: only the hub keeps several",
        ),
        Rule(
            "spec.diffusion",
            "GTJ0108",
            pipeline_or_network,
            "has(self.pretrained) ? (!has(self.latents) && self.method == 'denoising' && "
            f"{own} && (!has(self.conditioning) || ({told} && {captioned}))) : !has(self.adapt)",
            "pretrained beside network, latents or ddpo, or beside process but for prediction, minSnrGamma and timeSampling; conditioning "
            "of a class, or beside dreambooth or textualInversion; or adapt without pretrained",
        ),
        Rule(
            "spec.diffusion.adapt",
            "GTJ0108",
            the_word_is_given,
            "self.type != 'textual-inversion' || has(self.textualInversion)",
            "type: textual-inversion without textualInversion",
        ),
        Rule(
            "spec",
            "GTJ0108",
            one_beginning,
            "!has(self.diffusion) || !has(self.diffusion.pretrained) || "
            "(!has(self.training.initialWeights) && !has(self.training.distillation) && !has(self.data.curriculum))",
            "training.initialWeights, training.distillation or data.curriculum beside diffusion.pretrained",
        ),
    )


RULES = _rules()
