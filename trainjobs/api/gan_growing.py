"""What must hold of a GAN whose networks grow, or are told a class."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.gan import Gan
from trainjobs.api.job import Spec
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule

CONDITIONAL = ("dcgan", "sagan", "stylegan2")  # networks that can be told a class
PLACED = ("dcgan", "sagan")  # that are told it by batch norm


def lengths_matter(gan: Gan) -> Iterator[Breach]:
    if gan.generator.architecture == "pggan" and gan.regularization.orthogonal:
        what, why = "regularization.orthogonal with pggan", "its features are normalised, and its weights scaled as they are used"
        yield Breach(("regularization", "orthogonal"), what, why, "take orthogonal out, or use dcgan networks", on_key=True)


def networks_grow(gan: Gan) -> Iterator[Breach]:
    if gan.progressive is not None and gan.generator.architecture != "pggan":
        what, why = f"progressive with a {gan.generator.architecture} generator", "its layers are there from the first step on"
        yield Breach(("progressive",), what, why, "take progressive out, or use pggan networks", on_key=True)


def growth_has_room(spec: Spec) -> Iterator[Breach]:
    growing = spec.gan.progressive if spec.gan else None
    if growing is not None and 2 * growing.start > spec.data.images.size:
        what = f"growing from {growing.start} pixels, for images of {spec.data.images.size}"
        how = "start with fewer, or take progressive out"
        yield Breach(("gan", "progressive", "start"), what, "the first images are smaller than the last", how)


def classes_are_told(gan: Gan) -> Iterator[Breach]:
    """Each network has a place where the class comes in."""
    if not gan.conditional:
        return
    g = gan.generator
    if g.architecture not in CONDITIONAL:
        what, why = f"conditional with {g.architecture} networks", "they have no place where a class comes in"
        yield Breach(("conditional",), what, why, f"use {listed(CONDITIONAL)}, or take conditional out", on_key=True)
    elif g.architecture in PLACED and g.normalization != "batch":
        what, why = "conditional without batch normalisation", "its scales and biases are what tells the generator the class"
        yield Breach(("generator", "normalization"), what, why, "use normalization: batch, or stylegan2 networks")


RULES = (
    Rule(
        "spec.gan",
        "GTJ0108",
        classes_are_told,
        f"!self.conditional || (self.generator.architecture in {list(CONDITIONAL)} && "
        "(self.generator.architecture == 'stylegan2' || self.generator.normalization == 'batch'))",
        "conditional: dcgan and sagan with normalization: batch, and stylegan2, have a place where the class comes in",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        lengths_matter,
        "self.generator.architecture != 'pggan' || self.regularization.orthogonal == 0.0",
        "regularization.orthogonal with pggan: its features are normalised, and its weights scaled as they are used",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        networks_grow,
        "!has(self.progressive) || self.generator.architecture == 'pggan'",
        "progressive: only pggan networks grow",
    ),
    Rule(
        "spec",
        "GTJ0108",
        growth_has_room,
        "!has(self.gan) || !has(self.gan.progressive) || self.gan.progressive.start * 2 <= self.data.images.size",
        "gan.progressive.start: the first images are smaller than data.images.size",
    ),
)
