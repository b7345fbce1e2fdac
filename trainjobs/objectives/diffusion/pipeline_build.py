"""A pretrained pipeline as a model: its networks, what of them is trained, and what it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from trainjobs.api.buckets import Buckets
from trainjobs.api.diffusion import Diffusion
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.kinds import image
from trainjobs.models.new_words import NewWords
from trainjobs.models.pipeline_adapters import low_rank
from trainjobs.models.pipeline_network import T5, PipelineNetwork
from trainjobs.models.pipelines import Parts, load
from trainjobs.objectives.diffusion.pipeline import PipelineObjective
from trainjobs.objectives.diffusion.pipeline_process import process_of
from trainjobs.objectives.diffusion.texts import Texts, prompts_of, with_word
from trainjobs.objectives.phase import Model, Network

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo

VAE = "vae"


def build(spec: Spec, info: DataInfo) -> Model:
    """The pipeline's denoiser with its text encoders, of which some weights are trained, and its autoencoder, of which none are.

    JobError GTJ0109 when the pipeline cannot be used, GTJ0108 when it does not go together with the manifest or the data, GTJ0102 for
    layers that it has not and words that it has, GTJ0113 for a prompt that is too long.
    """
    family, base = spec.diffusion, info.base
    assert family is not None
    assert base is not None
    adapt = family.adapted
    half = spec.training.precision == "bf16" and adapt.type != "full"
    parts = load(base, half=half)
    process = process_of(parts.scheduler, parts.vae, family, base.uri)
    shape = latents(parts, info, spec.data.images.buckets)
    texts = trained(parts, family)
    nothing = tuple(texts.ids([""], "the empty prompt"))
    prompts = prompts_of(adapt)
    told = tuple(texts.ids(prompts, f"diffusion.adapt.{'dreambooth' if adapt.dreambooth else 'textualInversion'}")) if prompts else ()
    kinds = tuple(texts.ids([adapt.dreambooth.class_prompt], "diffusion.adapt.dreambooth.classPrompt")) if adapt.dreambooth else ()
    zeros = parts.kind == "StableDiffusionXLPipeline" and bool(parts.index.get("force_zeros_for_empty_prompt", True))
    network = PipelineNetwork(parts, info.shape[-1] // shape[-1], [ids[0] for ids in nothing] if zeros else ())
    objective = PipelineObjective(
        network, parts.vae, process, family, texts, nothing, told, shape, prompts[0] if prompts else "", class_ids=kinds
    )
    networks = {
        "denoiser": Network(network, origin=base.digest),
        VAE: Network(parts.vae, groups={}, averaged=False, origin=base.digest, split=False),
    }
    return Model(networks, objective, encode=objective.encode)


def trained(parts: Parts, family: Diffusion) -> Texts:
    """Have what `adapt` names be trained: these parameters alone ask for a gradient. New ones come from torch's global generator, which the
    caller seeds."""
    adapt, word, tokens = family.adapted, "", tuple[str, ...]()
    lengths = tuple(getattr(cast(Any, encoder).config, "max_position_embeddings", T5) for encoder in parts.encoders)
    clips = parts.encoders[:2]  # T5 is never trained, as in diffusers' script of low-rank changes; a new word it learns, too
    if adapt.type == "full":
        parts.denoiser.requires_grad_(True)
        for encoder in clips if adapt.text_encoder else ():
            encoder.requires_grad_(True)
    elif adapt.type == "lora":
        low_rank(parts.denoiser, adapt.lora, adapt.lora.target_modules)
        for encoder in clips if adapt.text_encoder else ():
            low_rank(encoder, adapt.lora, ("q_proj", "k_proj", "v_proj", "out_proj"))
    else:
        assert adapt.textual_inversion is not None
        new = adapt.textual_inversion
        word = new.placeholder
        tokens, places = with_word(parts.tokenizers, new.placeholder, new.initializer, new.vectors)
        for encoder, (first, begins) in zip(parts.encoders, places, strict=True):
            embedding = cast(Any, encoder).get_input_embeddings()
            assert isinstance(embedding, nn.Embedding)
            cast(Any, encoder).set_input_embeddings(NewWords(embedding, first, begins, new.vectors))
    return Texts(parts.tokenizers, lengths, word, tokens)


def latents(parts: Parts, info: DataInfo, buckets: Buckets | None = None) -> tuple[int, ...]:
    """(channels, height, width) of the latents of images. JobError GTJ0108 for images that cannot become such, of any of the shapes."""
    channels, size = image("diffusion.pretrained", "a pipeline", info)
    vae = cast(Any, parts.vae)
    if channels != vae.config.in_channels:
        why, how = f"the data has {channels}", f"set data.images.channels to {vae.config.in_channels}"
        raise JobError(
            "GTJ0108", f"the pipeline is for images of {vae.config.in_channels} channels", where="data.images.channels", why=why, how=how
        )
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    halvings = cast(Any, parts.denoiser).config.get("patch_size") or 2 ** (len(cast(Any, parts.denoiser).config.block_out_channels) - 1)
    unit = factor * halvings
    if size % unit:
        why = f"its autoencoder makes {factor} pixels one, and its denoiser {halvings} of those"
        how = f"set data.images.size to a multiple of {unit}"
        raise JobError("GTJ0108", f"images of {size} pixels do not fit the pipeline", where="data.images.size", why=why, how=how)
    if buckets is not None and buckets.step % unit:
        why = f"sides are multiples of it, its autoencoder makes {factor} pixels one, and its denoiser {halvings} of those"
        how, where = f"set it to a multiple of {unit}", "data.images.buckets.step"
        raise JobError("GTJ0108", f"a step of {buckets.step} pixels does not fit the pipeline", where=where, why=why, how=how)
    most = cast(Any, parts.denoiser).config.get("pos_embed_max_size")
    longest = size if buckets is None else max(buckets.high(size), size)
    if most and longest > unit * most:
        why = f"its denoiser knows {most} places a side, of {unit} pixels each"
        where, how = ("data.images.size" if buckets is None else "data.images.buckets.maxSide"), f"write {unit * most} or less"
        raise JobError("GTJ0108", f"sides of {longest} pixels do not fit the pipeline", where=where, why=why, how=how)
    return (int(vae.config.latent_channels), size // factor, size // factor)
