"""The rules of `rules.py` in the API server's own language (CEL), one for one and in the same order.

`kubectl apply` refuses with them what `gtj validate` refuses; a property test asks both about generated specs and wants the same verdict.
Rules see defaults: the server fills them in before it asks. What CEL may cost is computed from the fields' maximum sizes when the CRD is
installed, which is why every one of them has a maximum.

The rules about the keys of spec.deepspeed.config are not here, because CEL cannot look into free-form maps; `crd.py` says them with `not`.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainjobs.api.job import FAMILIES, NETWORKS
from trainjobs.api.problem import listed
from trainjobs.api.uris import BUILTINS


@dataclass(frozen=True)
class Rule:
    """`expression` must be true of the value at `path`. The message carries the code of the error that `gtj` would give."""

    path: str
    expression: str
    message: str


_BUILTIN_URIS = [f"builtin:{name}" for name in BUILTINS]
_NOT_IMAGES = [f"builtin:{name}" for name, kind in BUILTINS.items() if kind != "image"]
_NOT_TEXT = [f"builtin:{name}" for name, kind in BUILTINS.items() if kind != "text"]
_POINTS = [f"builtin:{name}" for name, kind in BUILTINS.items() if kind == "point"]

# One authority without user info (file: none), no query, no fragment, no white space, no unprintable character, no "..".
_CLEAN = r"!self.matches(r'[?#\s\p{C}\p{Z}]|/[.][.](/|$)')"
_SOURCE = r"self.matches(r'^(file:///|(s3|gs|az|hf)://[^/@]+(/|$))')"
_PREFIX = r"self.matches(r'^(file://|(s3|gs|az)://[^/@]+)/+[^/]')"
_WANTS_IMAGES = (
    "has(self.diffusion) || (has(self.vae) && self.vae.network.architecture == 'conv') || "
    "(has(self.gan) && (self.gan.generator.architecture == 'dcgan' || self.gan.discriminator.architecture == 'dcgan'))"
)
_BEST = "self.checkpoints.keep.best"
_EACH = "(self.compute.gpusPerWorker > 1 ? self.compute.gpusPerWorker : 1)"
_MICRO = "(has(self.training.batch.micro) ? self.training.batch.micro : 1)"


def _same(field: str) -> str:
    return f"(has(self.{field}) ? has(oldSelf.{field}) && self.{field} == oldSelf.{field} : !has(oldSelf.{field}))"


_NOT_STARTED = "!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts == 0"

RULES: tuple[Rule, ...] = (
    Rule(
        "spec",
        f"[{', '.join(f'has(self.{name})' for name in FAMILIES)}].exists_one(given, given)",
        f"GTJ0106 exactly one of {listed(FAMILIES)} is needed",
    ),
    Rule(
        "spec",
        # An elastic group divides the batch at either end of its range; a range that overflows divides nothing.
        f"string(self.compute.workers).split('-').all(n, self.training.batch.global % (int(n) * {_EACH} * {_MICRO}) == 0)",
        "GTJ0103 training.batch.global does not divide by the workers, their GPUs and training.batch.micro",
    ),
    Rule("spec", "!has(self.gan) || self.deepspeed.stage != 3", "GTJ0104 a GAN cannot train at ZeRO stage 3: use stage 0, 1, 2 or auto"),
    Rule(
        "spec.data.source",
        f"self.startsWith('builtin:') ? self in {_BUILTIN_URIS} : {_SOURCE} && {_CLEAN}",
        f"GTJ0107 not a usable URI: a bucket or an absolute path, no user, query, fragment, space or ..; built in are {listed(BUILTINS)}",
    ),
    Rule(
        "spec.checkpoints.uri",
        f"{_PREFIX} && {_CLEAN}",
        "GTJ0107 not a usable URI: a folder in a bucket or an absolute path, no user, query, fragment, space or ..",
    ),
    Rule(
        "spec.checkpoints.resumeFrom",
        f"self in ['latest', 'none'] || ({_PREFIX} && {_CLEAN})",
        "GTJ0107 not a usable URI: a folder in a bucket or an absolute path, no user, query, fragment, space or ..",
    ),
    Rule(
        "spec.training.initialWeights",
        f"{_PREFIX} && {_CLEAN}",
        "GTJ0107 not a usable URI: a folder or file in a bucket or an absolute path, no user, query, fragment, space or ..",
    ),
    Rule(
        "spec",
        "!has(self.training.initialWeights) || self.checkpoints.resumeFrom in ['latest', 'none']",
        "GTJ0108 training.initialWeights beside a checkpoint in checkpoints.resumeFrom: both say with which weights the run begins",
    ),
    *(
        Rule(
            "spec",
            f"!has(self.{family}) || self.training.optimizers.all(name, name in {[*networks, 'default']})",
            f"GTJ0102 training.optimizers names a network that a {family} does not have: {listed([*networks, 'default'])}",
        )
        for family, networks in NETWORKS.items()
    ),
    Rule(
        "spec",
        "!has(self.gan) || [self.gan.generator.architecture, self.gan.discriminator.architecture].all(a, "
        f"a == 'mlp' ? self.data.source in {_POINTS} : !(self.data.source in {_NOT_IMAGES}))",
        "GTJ0108 dcgan learns from images, mlp from points (builtin:ring)",
    ),
    Rule(
        "spec",
        "!has(self.vae) || (self.vae.network.architecture == 'mlp' "
        f"? self.data.source in {_POINTS} : !(self.data.source in {_NOT_IMAGES}))",
        "GTJ0108 conv learns from images, mlp from points (builtin:ring)",
    ),
    Rule("spec", f"!has(self.diffusion) || !(self.data.source in {_NOT_IMAGES})", "GTJ0108 a diffusion model learns from images"),
    Rule("spec", f"!has(self.language) || !(self.data.source in {_NOT_TEXT})", "GTJ0108 a language model learns from text"),
    Rule(
        "spec",
        f"has(self.custom) || {_WANTS_IMAGES} || "
        "(self.data.images.size == 32 && self.data.images.channels == 3 && self.data.images.augment.size() == 0)",
        "GTJ0108 data.images has no effect: the model does not learn from images",
    ),
    Rule(
        "spec",
        "has(self.custom) || has(self.language) || self.data.text.field == 'text'",
        "GTJ0108 data.text has no effect: the model does not learn from text",
    ),
    Rule(
        "spec.gan",
        "self.generator.architecture == self.discriminator.architecture",
        "GTJ0108 generator and discriminator need the same architecture",
    ),
    Rule(
        "spec.vae",
        "self.network.architecture != 'mlp' || self.loss.reconstruction != 'bce'",
        "GTJ0108 bce cannot score points: use mse",
    ),
    Rule(
        "spec.gan",
        "self.loss.type != 'wgan-gp' || self.loss.gradientPenalty == 0.0 || self.discriminator.normalization != 'batch'",
        "GTJ0108 a critic with gradient penalty takes no batch normalisation: use discriminator.normalization: none",
    ),
    Rule(
        "spec",
        "!has(self.diffusion) || [1, 2, 4, 8, 16, 32, 64][self.diffusion.network.multipliers.size()] <= self.data.images.size",
        "GTJ0108 too many multipliers for data.images.size: the lowest resolution must keep 2 pixels a side",
    ),
    Rule(
        "spec.language.network",
        "self.hidden % self.heads == 0 && (self.architecture != 'llama' || self.hidden / self.heads % 2 == 0)",
        "GTJ0108 hidden does not divide into that many heads (for llama: of even width)",
    ),
    Rule(
        "spec",
        "has(self.language) || has(self.custom) || !('perplexity' in self.evaluation.metrics)",
        "GTJ0108 perplexity is a measure of language models",
    ),
    Rule(
        "spec",
        "self.data.source == 'builtin:ring' || !('modes' in self.evaluation.metrics)",
        "GTJ0108 modes counts the modes of builtin:ring",
    ),
    Rule(
        "spec",
        f"has(self.custom) || !has({_BEST}) || ({_BEST}.metric == 'heldout/loss' ? !has(self.gan) : {_BEST}.metric == 'heldout/perplexity' "
        f"? has(self.language) : {_BEST}.metric in ['modes', 'modes/quality'] && self.data.source == 'builtin:ring')",
        "GTJ0102 checkpoints.keep.best.metric is not measured: heldout/loss (no GAN), heldout/perplexity (language), modes (builtin:ring)",
    ),
    Rule(
        "spec.gan.loss",
        "self.type == 'wgan-gp' || self.gradientPenalty in [0.0, 10.0]",
        "GTJ0108 gradientPenalty has no effect without type: wgan-gp",
    ),
    Rule("spec.gan.generator", "self.architecture != 'dcgan' || self.layers == 3", "GTJ0108 layers has no effect with dcgan"),
    Rule("spec.gan.discriminator", "self.architecture != 'dcgan' || self.layers == 3", "GTJ0108 layers has no effect with dcgan"),
    Rule("spec.vae.network", "self.architecture != 'conv' || self.layers == 2", "GTJ0108 layers has no effect with conv"),
    Rule("spec.language.tokenizer", "self.type != 'byte' || self.vocabularySize == 1024", "GTJ0108 vocabularySize has no effect with byte"),
    Rule("spec.language.network", "self.architecture != 'llama' || self.dropout == 0.0", "GTJ0108 dropout has no effect with llama"),
    Rule(
        "spec.training.optimizers.*",
        "self.name in ['adam', 'adamw'] ? self.momentum == 0.0 : self.betas == [0.9, 0.999]",
        "GTJ0108 momentum has no effect with adam and adamw, betas with the others",
    ),
    Rule(
        "spec.recovery",
        "self.onLossSpike != 'ignore' || (self.lossSpike.zScore == 8.0 && self.lossSpike.window == 100)",
        "GTJ0108 lossSpike has no effect with onLossSpike: ignore",
    ),
    Rule(
        "spec.recovery",
        "self.onNonFiniteLoss != 'halt' || self.onLossSpike == 'rollback' || self.maxRollbacks == 3",
        "GTJ0108 maxRollbacks has no effect where nothing rolls back",
    ),
    Rule("spec.training.schedule", "self.name != 'constant' || self.finalRatio == 0.0", "GTJ0108 finalRatio has no effect with constant"),
    Rule(
        "spec.compute.workers",
        "type(self) == int || int(string(self).split('-')[0]) <= int(string(self).split('-')[1])",
        "GTJ0102 not a range of workers: the smaller number comes first",
    ),
    Rule("spec.checkpoints.every", "has(self.steps) != has(self.minutes)", "GTJ0108 exactly one of steps and minutes"),
    Rule("spec.pod.env[]", "has(self.value) != has(self.secretKeyRef)", "GTJ0108 exactly one of value and secretKeyRef"),
    Rule("spec.recovery.stallTimeout", "self.matches('[1-9]')", "GTJ0102 stallTimeout must be longer than nothing"),
    Rule(
        "spec",
        "self.recovery.onLossSpike != 'rollback' || self.checkpoints.keep.last >= 2",
        "GTJ0108 recovery.onLossSpike: rollback needs checkpoints.keep.last of at least 2",
    ),
    # Not in rules.py, because only a server knows the object as it was.
    *(
        Rule("", f"{_NOT_STARTED} || {_same(f'spec.{field}')}", f"GTJ0108 spec.{field} cannot change once the job has started")
        for field in (*FAMILIES, "data", "training.seed", "training.batch.global")
    ),
)
