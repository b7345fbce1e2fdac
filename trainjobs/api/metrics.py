"""The metrics we know: the one table of what is measured of whom, which way is better, and where a report shows it.

A family's objective names what it measures, and whatever it measures is written down and drawn. What stands here can be asked for, can
choose the best checkpoint, shares a chart with its relatives, and has a line in the reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# What evaluation.metrics may name: each stands for the metrics of the table with that word in `asked`.
Asked = Literal[
    "loss",
    "instance",
    "perplexity",
    "modes",
    "bits",
    "active_units",
    "fid",
    "kid",
    "is",
    "precision",
    "recall",
    "bleu",
    "rouge_l",
    "win_rate",
]
QUALITY: tuple[Asked, ...] = ("fid", "kid", "is", "precision", "recall")  # of generated pictures, by features of a network
PICTURED = ("gan", "vae", "diffusion")
UNPICTURED = ("ring", "stdlib-text", "stdlib-pairs", "stdlib-chat", "stdlib-preferences")  # of what is built in
SAMPLED = ("vae", "diffusion", "language")
WAIT = "data/wait"  # of a step's time; of the worker that waited most
BUILTIN = "builtin"  # of evaluation.features
NEVER_HELD = "heldout/instance"  # of training pictures, at noise that is held out: it needs no held-out samples
# Told wherever the held-out loss is, in whose passes they come: of pairs of answers, and of what a teacher says.
WITH_LOSS = (*(f"heldout/rewards/{name}" for name in ("chosen", "rejected", "margin", "accuracy")), "heldout/divergence")
LIVE = "/live"  # ends the name of a held-out score of the weights themselves, which stands beside that of their average (training.ema)


@dataclass(frozen=True)
class Metric:
    """One quantity of metrics.jsonl, measured for `families`, or for all where there are none, on `builtin` data, or on any; by
    `features`, of pictures only: "digits" and "random" are built in, "file" is that of evaluation.features.

    `chart` and `label` are the titles of its chart and of its curve; `noisy` curves are drawn under their running mean; `tile` is its name
    among the headline numbers. Evaluations measure those that a word of evaluation.metrics has `asked` for. `mode`: which way is better.
    """

    name: str
    chart: str
    label: str
    families: tuple[str, ...] = ()
    builtin: str | None = None
    unit: str = ""
    noisy: bool = True
    tile: str = ""
    asked: Asked | None = None
    mode: Literal["min", "max", ""] = ""
    features: Literal["digits", "random", "file", ""] = ""

    def suits(self, families: Iterable[str], builtin: str | None, features: str = BUILTIN) -> bool:
        """Whether it can be measured in a job of these families on that data, with these evaluation.features. What custom objectives
        measure is theirs to say."""
        pictured = not self.features or (self.features == features_of(builtin, features) and builtin not in UNPICTURED)
        return (not self.families or bool({*self.families, "custom"} & {*families})) and self.builtin in (None, builtin) and pictured

    @property
    def cel(self) -> str:
        """The same of a spec."""
        family = " || ".join(f"has(self.{name})" for name in (*self.families, "custom"))
        data = f"has(self.data.source) && self.data.source == 'builtin:{self.builtin}'"
        return " && ".join([*([f"({family})"] if self.families else []), *([data] if self.builtin else []), *self._cel_of_features()])

    @property
    def whose(self) -> str:
        """In words: language, or data builtin:ring."""
        data = [f"data builtin:{self.builtin}"] if self.builtin else ["pictures"] if self.features else []
        return ", ".join([*self.families, *data, *(["a file of evaluation.features"] if self.features == "file" else [])]) or "every family"

    def _cel_of_features(self) -> list[str]:
        if not self.features:
            return []
        others = [f"builtin:{name}" for name in ([*UNPICTURED, "digits"] if self.features == "random" else UNPICTURED)]
        given = f"self.evaluation.features {'!=' if self.features == 'file' else '=='} '{BUILTIN}'"
        return [given] if self.builtin else [given, f"!(has(self.data.source) && self.data.source in {others})"]


def features_of(builtin: str | None, features: str) -> str:
    """Which features a job on that data has, by its evaluation.features."""
    return "file" if features != BUILTIN else "digits" if builtin == "digits" else "random"


_QUALITIES: tuple[tuple[tuple[Asked, ...], str, Literal["min", "max"]], ...] = (
    (("fid",), "Fréchet distance of features", "min"),
    (("kid",), "Kernel distance of features", "min"),
    (("is",), "Inception score", "max"),
    (("precision", "recall"), "Precision and recall", "max"),
)
_FEATURES: tuple[tuple[Literal["digits", "random", "file"], str], ...] = (
    ("digits", "a classifier of digits"),
    ("random", "a network of random weights"),
    ("file", "the network of evaluation.features"),
)
# In the order of a report's charts.
METRICS = (
    Metric("loss", "Loss", "training", SAMPLED, tile="loss", mode="min"),
    Metric("heldout/loss", "Loss", "held-out", SAMPLED, tile="held-out loss", asked="loss", mode="min"),
    Metric("heldout/loss/live", "Loss", "held-out, of the weights themselves", SAMPLED, mode="min"),
    Metric("heldout/instance", "Loss", "of the training pictures, at held-out noise", ("diffusion",), asked="instance", mode="min"),
    Metric("loss/D", "Discriminator loss", "D", ("gan",), tile="loss/D"),
    Metric("loss/G", "Generator loss", "G", ("gan",), tile="loss/G"),
    Metric(
        "heldout/perplexity",
        "Held-out perplexity",
        "perplexity",
        ("language",),
        unit="tokens",
        noisy=False,
        tile="perplexity",
        asked="perplexity",
        mode="min",
    ),
    Metric(
        "heldout/perplexity/live",
        "Held-out perplexity",
        "of the weights themselves",
        ("language",),
        unit="tokens",
        noisy=False,
        mode="min",
    ),
    Metric("heldout/bleu", "BLEU", "held-out", ("language",), noisy=False, tile="BLEU", asked="bleu", mode="max"),
    Metric("heldout/rouge_l", "ROUGE-L", "held-out", ("language",), unit="share", noisy=False, asked="rouge_l", mode="max"),
    Metric(
        "heldout/win_rate",
        "Win rate",
        "against the reference",
        ("language",),
        unit="share",
        noisy=False,
        tile="win rate",
        asked="win_rate",
        mode="max",
    ),
    *(
        Metric(f"{where}rewards/{name}", "Implicit rewards" if name != "accuracy" else "Preferred answers", f"{name}{of}", ("language",))
        for name in ("chosen", "rejected", "margin", "accuracy")
        for where, of in (("", ", training"), ("heldout/", ", held-out"))
    ),
    Metric("divergence", "Divergence from the teacher", "training", ("language",), unit="nats"),
    Metric("heldout/divergence", "Divergence from the teacher", "held-out", ("language",), unit="nats"),
    Metric("reward", "Reward", "mean", ("language",)),
    Metric("reward/deviation", "Reward", "standard deviation", ("language",)),
    Metric("reward/abstained", "Completions and images without a reward", "share", ("language", "diffusion")),
    Metric("completion/length", "Completion length", "tokens", ("language",), unit="tokens"),
    Metric("completion/ended", "Completions and groups", "completions that ended", ("language",), unit="share"),
    Metric("groups/flat", "Completions and groups", "groups of one reward", ("language",), unit="share"),
    Metric("clipped", "Completions and groups", "tokens whose ratio was clipped", ("language",), unit="share"),
    Metric("kl/reference", "KL from the reference", "k3", ("language",), unit="nats"),
    Metric("score/real", "Discriminator's scores", "real samples", ("gan",)),
    Metric("score/fake", "Discriminator's scores", "generated samples", ("gan",)),
    Metric("accuracy/D", "Discriminator's accuracy", "D", ("gan",), unit="share"),
    Metric("sign/real", "Adaptive augmentation", "mean sign of real scores", ("gan",), noisy=False),
    Metric("augment/p", "Adaptive augmentation", "strength p", ("gan",), noisy=False),
    Metric("gradient_penalty", "Gradient penalty", "penalty", ("gan",)),
    Metric("r1", "R1 penalty", "squared slope at real samples", ("gan",)),
    Metric("path_length", "Path length", "a step in the styles moves the image by", ("gan",)),
    Metric("orthogonal", "Filters at right angles", "squared inner products", ("gan",)),
    Metric("gradient_norm/discriminator", "Gradient norm", "D", ("gan",)),
    Metric("gradient_norm/generator", "Gradient norm", "G", ("gan",)),
    Metric("samples/spread", "Generated samples", "differ, as a share of data", ("gan",), noisy=False),
    Metric("samples/moved", "Generated samples", "moved since the evaluation before", ("gan",), noisy=False),
    Metric("samples/distance", "Generated samples", "distance from data", ("gan",), noisy=False),
    Metric("reconstruction", "Reconstruction", "training", ("vae",), mode="min"),
    Metric("heldout/reconstruction", "Reconstruction", "held-out", ("vae",), mode="min"),
    Metric("kl", "KL divergence", "training", ("vae",), unit="nats"),
    Metric("heldout/kl", "KL divergence", "held-out", ("vae",), unit="nats"),
    Metric("kl_weight", "KL weight", "weight", ("vae",), noisy=False),
    Metric("heldout/active_units", "Active units", "dimensions in use", ("vae",), noisy=False, asked="active_units", mode="max"),
    Metric("bits", "Variational bound", "training, of the steps drawn", ("diffusion",), unit="bits per dimension", mode="min"),
    Metric("heldout/bits", "Variational bound", "held-out", ("diffusion",), unit="bits per dimension", asked="bits", mode="min"),
    Metric("heldout/bits/live", "Variational bound", "of the weights themselves", ("diffusion",), unit="bits per dimension", mode="min"),
    Metric("modes", "modes", "modes", builtin="ring", noisy=False, tile="modes", asked="modes", mode="max"),
    Metric("modes/quality", "modes/quality", "quality", builtin="ring", unit="share", noisy=False, asked="modes", mode="max"),
    *(
        Metric(
            f"{word}/{features}",
            chart,
            of,
            PICTURED,
            "digits" if features == "digits" else None,
            unit="share" if word in ("precision", "recall") else "",
            noisy=False,
            asked=word,
            mode=mode,
            features=features,
        )
        for words, chart, mode in _QUALITIES
        for word in words
        for features, by in _FEATURES
        if (word, features) != ("is", "random")  # it has no classes
        for of in (f"{word} by {by}" if len(words) > 1 else f"by {by}",)
    ),
    Metric(WAIT, "Waiting for data", "share of a step", unit="share"),
)
EXAMPLE = next(metric.name for metric in METRICS if metric.asked)
# Why not everybody may ask, by the word they asked with; and the words of evaluation.metrics' description.
SCOPES: dict[Asked, str] = {
    "instance": "is the loss of a diffusion model over the pictures that it is trained on, at noise and timesteps that training does not "
    "draw, the same at every evaluation: for few pictures, of which none can be held out",
    "perplexity": "is a measure of language models",
    "bleu": "is the BLEU of what a language model of task seq2seq or caption writes, by the corpus, as sacreBLEU measures it",
    "rouge_l": "is the mean ROUGE-L of the same texts",
    "win_rate": "is the share of held-out prompts whose completion is worth more than the reference's by evaluation.rewards, a tie half, "
    "of a language model of method dpo, grpo or ppo",
    "modes": "counts the modes of builtin:ring",
    "bits": "is the variational bound of diffusion models, in bits per dimension",
    "active_units": "counts the latent dimensions that a vae uses",
    "fid": "is the Fréchet distance of generated pictures from the data, of a gan, vae or diffusion model of pictures",
    "kid": "is the kernel distance of generated pictures from the data, of a gan, vae or diffusion model of pictures",
    "is": "is the inception score of generated pictures: it needs a classifier, that of builtin:digits or one of evaluation.features",
    "precision": "is the share of generated pictures that look like the data's, of a gan, vae or diffusion model of pictures",
    "recall": "is the share of the data's pictures that look like generated ones, of a gan, vae or diffusion model of pictures",
}
ASKED = "; ".join(["loss: held-out loss", *(f"{asked} {scope}" for asked, scope in SCOPES.items())]) + "."


def answers(asked: str) -> list[Metric]:
    """The metrics that a word of evaluation.metrics asks for."""
    return [metric for metric in METRICS if metric.asked == asked]


def question(name: str) -> str:
    """The word of evaluation.metrics that asks for a metric. Those of custom objectives are asked for by their own name."""
    return next((metric.asked for metric in METRICS if metric.name == name and metric.asked), name.removeprefix("heldout/"))


def measured_by(path: str) -> str:
    """CEL: whether the metric named at `path` of a spec is one that evaluations of it measure."""
    whose: dict[str, list[str]] = {}
    for metric in METRICS:
        if metric.asked:
            whose.setdefault(metric.cel, []).append(metric.name)
    return " || ".join(f"({path} in {names} && {cel})" for cel, names in whose.items())


def listing() -> str:
    """The metrics that evaluations measure, and of whom, in words."""
    whose: dict[str, list[str]] = {}
    for metric in METRICS:
        if metric.asked:
            whose.setdefault(metric.whose, []).append(metric.name)
    return "; ".join(f"{', '.join(names)} ({who})" for who, names in whose.items())
