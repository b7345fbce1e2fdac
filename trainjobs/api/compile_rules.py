"""What `training.compile` does not go together with."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.job import Spec
from trainjobs.api.rule import Breach, Rule

_PLACE = ("training", "compile")
_HOW = "take compile out"


def has_blocks(spec: Spec) -> Iterator[Breach]:
    """GANs differentiate twice or have no two blocks alike; of a VAE only one architecture has blocks."""
    if not spec.training.compile or len(spec.families) != 1:
        return
    if spec.gan is not None:
        why = "hardly two of its blocks are alike, so each would be compiled by itself"
        if spec.gan.loss.type == "wgan-gp" or spec.gan.regularization.r1 is not None or spec.gan.regularization.path_length is not None:
            why = "a penalty differentiates a gradient again, and what is compiled has no second derivative"
        yield Breach(_PLACE, "compile with a gan", why, _HOW, on_key=True)
    elif spec.vae is not None and spec.vae.network.architecture != "autoencoder-kl":
        why, how = "its layers are not repeated blocks", "take compile out, or architecture: autoencoder-kl"
        yield Breach(_PLACE, f"compile with a {spec.vae.network.architecture} vae", why, how, on_key=True)


def stage_keeps_weights(spec: Spec) -> Iterator[Breach]:
    if spec.training.compile and spec.deepspeed.stage == 3:
        why = "stage 3 gathers the weights of each layer as it is reached, and cuts the program of a block at each of them"
        yield Breach(("deepspeed", "stage"), "compile at ZeRO stage 3", why, "use stage 0, 1, 2 or auto, or take compile out")


def nobody_listens(spec: Spec) -> Iterator[Breach]:
    """Terms of the loss that listen to layers put a hook on each for every loss anew. torch's programs do not look for new ones
    (`skip_nnmodule_hook_guards`): a term that found none would be 0, and nobody would be told."""
    if not spec.training.compile:
        return
    why = "its term of the loss listens to layers within blocks by hooks of each step, for which what is compiled need not look again"
    if spec.training.sparsity.activations:
        yield Breach(_PLACE, "compile with sparsity.activations", why, _HOW, on_key=True, beside=("training", "sparsity", "activations"))
    if spec.training.distillation is not None and spec.training.distillation.features:
        yield Breach(_PLACE, "compile with distillation.features", why, _HOW, on_key=True, beside=("training", "distillation", "features"))


def shapes_are_fixed(spec: Spec) -> Iterator[Breach]:
    if not spec.training.compile:
        return
    why = "every shape is compiled anew"
    if spec.data.images.buckets is not None:
        yield Breach(_PLACE, "compile with data.images.buckets", why, _HOW, on_key=True, beside=("data", "images", "buckets"))
    own = spec.language
    if own is not None and (own.method != "sft" or own.task != "causal"):
        of = f"method: {own.method}" if own.method != "sft" else f"task: {own.task}"
        yield Breach(_PLACE, f"compile with {of}", "its rows differ in length, and every length is compiled anew", _HOW, on_key=True)
    if own is not None and own.adapter is not None and own.adapter.type == "prefix":
        yield Breach(_PLACE, "compile with a prefix", "it is told to blocks as keys that are there already", _HOW, on_key=True)


_OFF = "!self.training.compile"

RULES = (
    Rule(
        "spec",
        "GTJ0108",
        has_blocks,
        f"{_OFF} || (!has(self.gan) && (!has(self.vae) || self.vae.network.architecture == 'autoencoder-kl'))",
        "training.compile is not for a gan, and of a vae for architecture: autoencoder-kl alone",
    ),
    Rule("spec", "GTJ0104", stage_keeps_weights, f"{_OFF} || self.deepspeed.stage != 3", "training.compile at ZeRO stage 3"),
    Rule(
        "spec",
        "GTJ0108",
        nobody_listens,
        f"{_OFF} || (self.training.sparsity.activations == 0.0 && (!has(self.training.distillation) || "
        "self.training.distillation.features.size() == 0))",
        "training.compile with sparsity.activations or distillation.features: their terms listen to layers within blocks",
    ),
    Rule(
        "spec",
        "GTJ0108",
        shapes_are_fixed,
        f"{_OFF} || (!has(self.data.images.buckets) && (!has(self.language) || (self.language.method == 'sft' && "
        "self.language.task == 'causal' && (!has(self.language.adapter) || self.language.adapter.type != 'prefix'))))",
        "training.compile with data.images.buckets, another language.method than sft, another task than causal, or an adapter of prefixes",
    ),
)
