"""What must hold of a GAN: which loss goes with which network and which regulariser."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api import gan_growing
from trainjobs.api.gan import WASSERSTEIN, Gan
from trainjobs.api.job import Spec
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule

ADAM = ("adam", "adamw")
PLACED = ("dcgan", "sagan")  # whose attention has places


def networks_agree(gan: Gan) -> Iterator[Breach]:
    generator, discriminator = gan.generator.architecture, gan.discriminator.architecture
    if generator != discriminator:
        what = f"a {discriminator} discriminator cannot judge what a {generator} generator makes"
        why = "one handles images, the other points" if "mlp" in (generator, discriminator) else "they are made for each other"
        yield Breach(("discriminator", "architecture"), what, why, f"use {generator} for both")


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


def styles_have_a_mapping(gan: Gan) -> Iterator[Breach]:
    if gan.styled:
        if gan.regularization.orthogonal:
            what, why = (
                "regularization.orthogonal with stylegan2",
                "its layers are demodulated, and the length of a filter is no matter of its own",
            )
            yield Breach(("regularization", "orthogonal"), what, why, "take orthogonal out, or use dcgan networks", on_key=True)
    elif gan.regularization.path_length is not None:
        what = f"regularization.pathLength with a {gan.generator.architecture} generator"
        why = "it is about steps in the space of styles, and this generator has no mapping network"
        yield Breach(("regularization", "pathLength"), what, why, "take pathLength out, or use stylegan2 networks", on_key=True)


def augments_images(gan: Gan) -> Iterator[Breach]:
    if gan.augment is not None and gan.discriminator.architecture == "mlp":
        what = f"augmentation with {gan.discriminator.architecture} networks"
        yield Breach(("augment",), what, "colours and places are those of images, and they learn from points", "take it out", on_key=True)


def policies_differ(gan: Gan) -> Iterator[Breach]:
    for field in ("policy", "pipeline"):
        names = getattr(gan.augment, field) if gan.augment else []
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Breach(("augment", field, index), f"{name} is there twice", how="take one out")


def scores_have_a_sign(gan: Gan) -> Iterator[Breach]:
    if gan.augment is not None and gan.augment.type == "ada" and gan.loss.type in WASSERSTEIN:
        what = f"augment.type: ada with loss.type: {gan.loss.type}"
        why = "its strength follows the sign of the discriminator's scores, and those of a critic have no zero that means anything"
        yield Breach(("augment", "type"), what, why, "use type: diffaug, or another loss")


def attention_has_place(spec: Spec) -> Iterator[Breach]:
    """Feature maps have the sizes 4, 8, ..., half of the images'."""
    if spec.gan is None:
        return
    size = spec.data.images.size
    known = [2**n for n in range(2, size.bit_length() - 1)]
    for name, network in (("generator", spec.gan.generator), ("discriminator", spec.gan.discriminator)):
        if network.architecture not in PLACED:
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
    for name, network, lazy in (("r1", "discriminator", spec.gan.r1_lazy), ("pathLength", "generator", spec.gan.path_lazy)):
        chosen = spec.training.optimizer(network).name
        if lazy is not None and chosen not in ADAM:
            what = f"{name} in steps of its own (every: {lazy.every}) with {chosen}"
            why = f"they are made up for in Adam's rate and betas, and {chosen} has no betas"
            how = f"write every: 1, or use adam or adamw for the {network}"
            yield Breach(("gan", "regularization", name, "every"), what, why, how)


def groups_are_whole(spec: Spec) -> Iterator[Breach]:
    """A group of minibatch deviation lies within one micro-batch, and so is the same however a batch is cut; as are the samples of which
    path length takes one."""
    if spec.gan is None:
        return
    deviation, path, batch = spec.gan.discriminator.minibatch_deviation, spec.gan.regularization.path_length, spec.training.batch
    asked = [("minibatch deviation", "minibatchDeviation.group", deviation.group)] if deviation else []
    asked += [("path length", "pathLength.batchShrink", path.batch_shrink)] if path and path.batch_shrink > 1 else []
    for name, field, group in asked:
        why = "its groups are of consecutive samples, and each lies within one micro-batch"
        if batch.micro is None and isinstance(spec.compute.workers, str):
            what = f"{name} on an elastic group needs training.batch.micro"
            yield Breach(("training", "batch"), what, why, f"write a micro-batch that is a multiple of {group}")
            continue
        processes = spec.compute.worker_range[0] * spec.compute.each
        micro = batch.global_ // processes if batch.micro is None else batch.micro
        if micro % group and (batch.micro is not None or batch.global_ % processes == 0):
            what = f"a micro-batch of {micro} is no multiple of {field}, which is {group}"
            how = f"use a multiple of {group}, or another {field.rpartition('.')[2]}"
            yield Breach(("training", "batch", *(("micro",) if batch.micro is not None else ())), what, why, how)


def _attention(network: str) -> str:
    """In CEL, that the network has maps of these sizes."""
    sizes = [4, 8, 16, 32, 64, 128]
    own = f"self.gan.{network}"
    known = f"(r in {sizes} && r * 2 <= self.data.images.size && {own}.attention.exists_one(q, q == r))"
    return f"(!({own}.architecture in {list(PLACED)}) || {own}.attention.all(r, {known}))"


def _adam(network: str) -> str:
    """In CEL, that the network's optimizer has betas."""
    own = f"'{network}' in self.training.optimizers ? self.training.optimizers['{network}'].name : "
    return f"({own}'default' in self.training.optimizers ? self.training.optimizers['default'].name : 'adamw') in ['adam', 'adamw']"


def _whole(field: str, group: str) -> str:
    """In CEL, that a micro-batch is a multiple of a group, where the field of it is given."""
    micro = f"has(self.training.batch.micro) ? self.training.batch.micro % {group} == 0"
    processes = f"(int({_WORKERS}) * {_EACH})"
    even = f"self.training.batch.global % {processes} != 0 || self.training.batch.global / {processes} % {group} == 0"
    return f"!has(self.gan) || !has({field}) || ({micro} : !{_WORKERS}.contains('-') && ({even}))"


_R1 = "has(self.regularization.r1)"
_GROUP = "self.gan.discriminator.minibatchDeviation"
_LAZY = "self.gan.regularization"
_PATH = f"{_LAZY}.pathLength"
_EACH = "(self.compute.gpusPerWorker > 1 ? self.compute.gpusPerWorker : 1)"
_WORKERS = "string(self.compute.workers)"

RULES = (
    *gan_growing.RULES,
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
        "!has(self.augment) || self.discriminator.architecture != 'mlp'",
        "augment is of images: take it out, or use networks for images",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        styles_have_a_mapping,
        "self.generator.architecture == 'stylegan2' ? self.regularization.orthogonal == 0.0 : !has(self.regularization.pathLength)",
        "regularization.pathLength needs stylegan2 networks, which take no regularization.orthogonal",
    ),
    Rule(
        "spec.gan",
        "GTJ0102",
        policies_differ,
        "!has(self.augment) || (self.augment.policy.all(p, self.augment.policy.exists_one(q, q == p)) && "
        "self.augment.pipeline.all(p, self.augment.pipeline.exists_one(q, q == p)))",
        "augment.policy or augment.pipeline names something twice",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        scores_have_a_sign,
        f"!has(self.augment) || self.augment.type != 'ada' || !(self.loss.type in {list(WASSERSTEIN)})",
        "augment.type: ada follows the sign of scores, which a Wasserstein loss gives no meaning: use diffaug",
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
        f"!has(self.gan) || ((!has({_LAZY}.r1) || {_LAZY}.r1.every == 1 || {_adam('discriminator')}) && "
        f"(!has({_LAZY}.pathLength) || {_LAZY}.pathLength.every == 1 || {_adam('generator')}))",
        "every above 1 of r1 or pathLength is made up for in Adam's betas: use adam or adamw for that network, or every: 1",
    ),
    Rule(
        "spec",
        "GTJ0103",
        groups_are_whole,
        f"({_whole(_GROUP, f'{_GROUP}.group')}) && ({_whole(_PATH, f'{_PATH}.batchShrink')} || {_PATH}.batchShrink == 1)",
        "training.batch.micro is no multiple of discriminator.minibatchDeviation.group or regularization.pathLength.batchShrink, or not "
        "given for an elastic group",
    ),
)
