"""What must hold of a GAN: which loss goes with which network and which regulariser."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.gan import Gan
from trainjobs.api.job import Spec
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule

ADAM = ("adam", "adamw")


def networks_agree(gan: Gan) -> Iterator[Breach]:
    generator, discriminator = gan.generator.architecture, gan.discriminator.architecture
    if generator != discriminator:
        what = f"a {discriminator} discriminator cannot judge what a {generator} generator makes"
        yield Breach(("discriminator", "architecture"), what, "one handles images, the other points", f"use {generator} for both")


def critic_without_batch_norm(gan: Gan) -> Iterator[Breach]:
    if gan.loss.type == "wgan-gp" and gan.loss.gradient_penalty != 0 and gan.discriminator.normalization == "batch":
        what = "a critic with gradient penalty takes no batch normalisation"
        why = "the penalty is on each sample's own gradient, and batch normalisation mixes the samples (Gulrajani et al., 2017, section 4)"
        yield Breach(("discriminator", "normalization"), what, why, "use normalization: none")


def r1_without_batch_norm(gan: Gan) -> Iterator[Breach]:
    if gan.regularization.r1 is not None and gan.discriminator.normalization == "batch":
        what = "a discriminator with R1 takes no batch normalisation"
        why = "R1 is on each sample's own gradient, and batch normalisation mixes the samples"
        yield Breach(("discriminator", "normalization"), what, why, "use normalization: none")


def one_penalty(gan: Gan) -> Iterator[Breach]:
    if gan.regularization.r1 is not None and gan.loss.type == "wgan-gp" and gan.loss.gradient_penalty != 0:
        what = "regularization.r1 beside a gradient penalty"
        why = "the penalty pulls the norm of the critic's gradient to 1, and R1 to 0"
        yield Breach(("regularization", "r1"), what, why, "take one out, or write gradientPenalty: 0", on_key=True)


def clipping_alone(gan: Gan) -> Iterator[Breach]:
    if gan.loss.type != "wgan":
        return
    if gan.regularization.r1 is not None:
        what, why = "regularization.r1 with type: wgan", "its weights are clipped already, and both limit the slope of the critic"
        yield Breach(("regularization", "r1"), what, why, "take r1 out, or use another loss", on_key=True)
    if gan.discriminator.spectral_norm:
        what = "spectral normalisation with type: wgan"
        why = "it divides the clipped weights by their largest singular value, so that clipping limits nothing"
        yield Breach(("discriminator", "spectralNorm"), what, why, "take spectralNorm out, or use another loss")


def augments_images(gan: Gan) -> Iterator[Breach]:
    if gan.augment is not None and gan.discriminator.architecture != "dcgan":
        what = f"augmentation with {gan.discriminator.architecture} networks"
        yield Breach(("augment",), what, "colours and places are those of images, and they learn from points", "take it out", on_key=True)


def policies_differ(gan: Gan) -> Iterator[Breach]:
    policy = gan.augment.policy if gan.augment else []
    for index, name in enumerate(policy):
        if name in policy[:index]:
            yield Breach(("augment", "policy", index), f"{name} is there twice", how="take one out")


def attention_has_place(spec: Spec) -> Iterator[Breach]:
    """Feature maps have the sizes 4, 8, ..., half of the images'."""
    if spec.gan is None:
        return
    size = spec.data.images.size
    known = [2**n for n in range(2, size.bit_length() - 1)]
    for name, network in (("generator", spec.gan.generator), ("discriminator", spec.gan.discriminator)):
        if network.architecture != "dcgan":
            continue
        for index, resolution in enumerate(network.attention):
            if resolution not in known or resolution in network.attention[:index]:
                twice = resolution in known
                what = f"the {name} has {'attention' if twice else 'no feature map'} of {resolution} pixels{' twice' if twice else ''}"
                why = "" if twice else f"for images of {size} its maps have {listed(known, 'and')}"
                yield Breach(("gan", name, "attention", index), what, why, "take one out" if twice else f"use {listed(known)}")


def lazy_has_betas(spec: Spec) -> Iterator[Breach]:
    if spec.gan is None:
        return
    for network in spec.gan.lazy:
        chosen = spec.training.optimizer(network).name
        if chosen not in ADAM:
            what = f"R1 in steps of its own (every: {spec.gan.regularization.r1.every if spec.gan.regularization.r1 else 1}) with {chosen}"
            why = f"they are made up for in Adam's rate and betas, and {chosen} has no betas"
            how = f"write every: 1, or use adam or adamw for the {network}"
            yield Breach(("gan", "regularization", "r1", "every"), what, why, how)


def groups_are_whole(spec: Spec) -> Iterator[Breach]:
    """A group of minibatch deviation lies within one micro-batch, and so is the same however a batch is cut."""
    if spec.gan is None or spec.gan.discriminator.minibatch_deviation is None:
        return
    group, batch = spec.gan.discriminator.minibatch_deviation.group, spec.training.batch
    place, why = ("training", "batch", "micro"), "its groups are of consecutive samples, and each lies within one micro-batch"
    if batch.micro is None and isinstance(spec.compute.workers, str):
        what = "minibatch deviation on an elastic group needs training.batch.micro"
        yield Breach(("training", "batch"), what, why, f"write a micro-batch that is a multiple of {group}")
        return
    processes = spec.compute.worker_range[0] * spec.compute.each
    micro = batch.global_ // processes if batch.micro is None else batch.micro
    if micro % group and (batch.micro is not None or batch.global_ % processes == 0):
        what = f"a micro-batch of {micro} is no multiple of minibatchDeviation.group, which is {group}"
        how = f"use a multiple of {group}, or another group"
        yield Breach(place if batch.micro is not None else place[:2], what, why, how)


def _attention(network: str) -> str:
    """In CEL, that the network has maps of these sizes."""
    sizes = [4, 8, 16, 32, 64, 128]
    own = f"self.gan.{network}"
    known = f"(r in {sizes} && r * 2 <= self.data.images.size && {own}.attention.exists_one(q, q == r))"
    return f"({own}.architecture != 'dcgan' || {own}.attention.all(r, {known}))"


_ADAM = (
    "('discriminator' in self.training.optimizers ? self.training.optimizers['discriminator'].name : "
    "'default' in self.training.optimizers ? self.training.optimizers['default'].name : 'adamw') in ['adam', 'adamw']"
)
_R1 = "has(self.regularization.r1)"
_GROUP = "self.gan.discriminator.minibatchDeviation"
_EACH = "(self.compute.gpusPerWorker > 1 ? self.compute.gpusPerWorker : 1)"
_WORKERS = "string(self.compute.workers)"

RULES = (
    Rule(
        "spec.gan",
        "GTJ0108",
        networks_agree,
        "self.generator.architecture == self.discriminator.architecture",
        "generator and discriminator need the same architecture",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        critic_without_batch_norm,
        "self.loss.type != 'wgan-gp' || self.loss.gradientPenalty == 0.0 || self.discriminator.normalization != 'batch'",
        "a critic with gradient penalty takes no batch normalisation: use discriminator.normalization: none",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        r1_without_batch_norm,
        f"!{_R1} || self.discriminator.normalization != 'batch'",
        "a discriminator with regularization.r1 takes no batch normalisation: use discriminator.normalization: none",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        one_penalty,
        f"!{_R1} || self.loss.type != 'wgan-gp' || self.loss.gradientPenalty == 0.0",
        "regularization.r1 beside a gradient penalty: one pulls the gradient's norm to 0, the other to 1",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        clipping_alone,
        f"self.loss.type != 'wgan' || !({_R1} || self.discriminator.spectralNorm)",
        "type: wgan clips weights, and goes neither with regularization.r1 nor with discriminator.spectralNorm",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        augments_images,
        "!has(self.augment) || self.discriminator.architecture == 'dcgan'",
        "augment is of images: take it out, or use dcgan networks",
    ),
    Rule(
        "spec.gan",
        "GTJ0102",
        policies_differ,
        "!has(self.augment) || self.augment.policy.all(p, self.augment.policy.exists_one(q, q == p))",
        "augment.policy names something twice",
    ),
    Rule(
        "spec",
        "GTJ0108",
        attention_has_place,
        f"!has(self.gan) || ({_attention('generator')} && {_attention('discriminator')})",
        "attention: sizes of feature maps are 4, 8, ... up to half of data.images.size, each once",
    ),
    Rule(
        "spec",
        "GTJ0108",
        lazy_has_betas,
        f"!has(self.gan) || !has(self.gan.regularization.r1) || self.gan.regularization.r1.every == 1 || {_ADAM}",
        "regularization.r1.every above 1 is made up for in Adam's betas: use adam or adamw for the discriminator, or every: 1",
    ),
    Rule(
        "spec",
        "GTJ0103",
        groups_are_whole,
        f"!has(self.gan) || !has({_GROUP}) || (has(self.training.batch.micro) ? self.training.batch.micro % {_GROUP}.group == 0 : "
        f"!{_WORKERS}.contains('-') && (self.training.batch.global % (int({_WORKERS}) * {_EACH}) != 0 || "
        f"self.training.batch.global / (int({_WORKERS}) * {_EACH}) % {_GROUP}.group == 0))",
        "training.batch.micro is no multiple of discriminator.minibatchDeviation.group, or not given for an elastic group",
    ),
)
