"""What is learned from: where it is, in which form, which of it, and what a sample is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api import uris
from trainjobs.api.buckets import SIDES, Buckets, sides_fit
from trainjobs.api.curriculum import Curriculum
from trainjobs.api.fields import DataUri, Identifier, Model, PositiveInt
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule

# What a column of the data may stand for. In this order they are looked for, each under the names behind it.
ROLES = {
    "image": ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "file_name"),
    "text": ("text", "content", "document", "txt", "md"),
    "caption": ("caption", "text", "txt", "description", "title"),
    "label": ("label", "labels", "cls", "class", "fine_label", "category"),
    "prompt": ("prompt", "instruction", "question"),
    "input": ("input",),
    "completion": ("completion", "response", "answer", "output"),
    "messages": ("messages", "conversations", "conversation"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "source": ("source",),
    "target": ("target",),
}
FORMATS = ("images", "webdataset", "parquet", "jsonl", "csv", "text")

ColumnName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
Bytes = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$")]
_UNITS = {"": 1, **{name: 1000 ** (place + 1) for place, name in enumerate("kMGT")}}
_UNITS |= {f"{name}i": 1024 ** (place + 1) for place, name in enumerate("KMGT")}


class Strength(Model):
    """How much the random changes of data.images.augment change."""

    rotation: Annotated[float, Field(gt=0, le=180)] = Field(10.0, description="Degrees, at most, in either direction [degrees].")
    crop: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.125, description="How far randomCrop moves a picture, at most, as a share of its side [padding, in pixels]."
    )
    brightness: Annotated[float, Field(ge=0, le=1)] = Field(0.2, description="colorJitter: brightness times 1 - this to 1 + this.")
    contrast: Annotated[float, Field(ge=0, le=1)] = Field(0.2, description="colorJitter: contrast likewise.")
    saturation: Annotated[float, Field(ge=0, le=1)] = Field(0.2, description="colorJitter: saturation likewise; of colour pictures.")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="colorJitter: turns of the colour wheel, at most, either way.")


class Images(Model):
    """How pictures are read."""

    size: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = Field(
        32,
        description="Height and width in pixels, a multiple of 8; other sizes are resized and centre-cropped. GANs and conv need a power "
        "of two [resolution].",
    )
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colour.")
    augment: Annotated[list[Literal["horizontalFlip", "rotation", "randomCrop", "colorJitter"]], Field(max_length=8)] = Field(
        [],
        description="Random changes applied to each training image, in this order: horizontalFlip, in half of the cases; rotation; "
        "randomCrop, which moves it; colorJitter, brightness, contrast, saturation and hue. What comes in at the edges is the picture, "
        "mirrored [RandomHorizontalFlip, RandomRotation, RandomCrop, ColorJitter].",
    )
    strength: Strength = Strength()
    buckets: Buckets | None = Field(
        None,
        description="Pictures of several shapes, whose areas are at most size x size, instead of squares; whole micro-batches are of one "
        "shape. Samples and evaluations are of the square one [enable_bucket].",
    )


class Text(Model):
    """How text is read."""

    field: Identifier = Field("text", description="Field of a record that holds the text; data.columns.text says the same of any form.")


class Columns(Model):
    """Which column of the data is what. Of those not named, the usual names are recognised."""

    image: ColumnName | None = Field(
        None, description="Pictures, as encoded files; or the paths of those beside it, as the table has them."
    )
    text: ColumnName | None = Field(None, description="Documents that a language model reads.")
    caption: ColumnName | None = Field(None, description="What a picture shows, in words.")
    label: ColumnName | None = Field(None, description="Class of a sample: a number, or a word.")
    prompt: ColumnName | None = Field(None, description="What is asked.")
    input: ColumnName | None = Field(None, description="What the prompt is about, which follows it.")
    completion: ColumnName | None = Field(None, description="What is to be answered.")
    messages: ColumnName | None = Field(None, description="A conversation: a list of {role, content}.")
    chosen: ColumnName | None = Field(None, description="The better of two answers.")
    rejected: ColumnName | None = Field(None, description="The worse of two answers.")
    source: ColumnName | None = Field(None, description="What is translated or rewritten.")
    target: ColumnName | None = Field(None, description="What it becomes.")


class Part(Model):
    """One source of a mixture."""

    source: DataUri = Field(description="As data.source.")
    weight: Annotated[float, Field(gt=0, le=1e6)] = Field(1.0, description="Its share of the samples, relative to the others' weights.")


class Split(Model):
    """Which part of the data is trained on, and which is held out."""

    train: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")] | None = Field(
        None, description="Name of the split that is trained on, as folders and shards are called; train, where the data has one."
    )
    validation: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Name of the split that is held out, or another source's URI, instead of the share data.holdout."
    )


class Data(Model):
    source: DataUri | None = Field(
        None,
        description="Folder, file or glob (file://, s3://, gs://, az://), dataset (hf://datasets/org/name/config@revision), or "
        "builtin:digits, shapes, ring, stdlib-text, stdlib-pairs, stdlib-chat, stdlib-preferences.",
    )
    sources: Annotated[list[Part], Field(max_length=16)] = Field([], description="A mixture of several, instead of data.source.")
    format: Literal["auto", "images", "webdataset", "parquet", "jsonl", "csv", "text"] = Field(
        "auto", description="How the data is written; auto: by the names of its files."
    )
    columns: Columns = Columns()
    labels: Literal["none", "folder"] = Field("none", description="folder: the class of an image is the folder that it lies in.")
    where: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="Only samples of which this is true: comparisons of columns, such as `language == 'en' and width >= 256`."
    )
    limit: PositiveInt | None = Field(None, description="Only the first so many samples.")
    split: Split = Split()
    images: Images = Images()
    text: Text = Text()
    holdout: Annotated[float, Field(ge=0, le=0.5)] = Field(0.05, description="Share of the data kept aside for the held-out loss.")
    curriculum: Curriculum | None = Field(None, description="What is learned first; without it, everything from the start.")
    cache: Bytes | None = Field(
        None, description="Disk that fetched and prepared data may take on each machine, such as 200Gi; half of what is free."
    )
    workers: Annotated[int, Field(ge=0, le=256)] | None = Field(
        None, description="Threads of each process that fetch and decode ahead of training; as many as its share of the cores."
    )
    on_bad_sample: Literal["fail", "skip"] = Field(
        "fail", description="skip: samples that cannot be read are left out, counted and named; more than 1 % of them end the run."
    )

    @property
    def uri(self) -> str:
        """The source; of a mixture, its first; "" where a manifest, wrongly, names none."""
        return self.source or next((part.source for part in self.sources), "")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every source with its weight."""
        return tuple(self.sources) or (Part(source=self.uri),)


def size_in_bytes(text: str) -> int:
    """Of a size as manifests write it: "200Gi" is 200 * 2**30."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]  # the field's pattern
    return int(float(number) * _UNITS[unit])


def one_source(data: Data) -> Iterator[Breach]:
    if data.source is None and not data.sources:
        yield Breach((), "data names no source", how="add source: with a URI, or sources: with several", on_key=True)
    elif data.source is not None and data.sources:
        yield Breach(("sources",), "sources beside source", "a mixture names all of its sources", "move source into sources", on_key=True)
    for number, part in enumerate(data.sources):
        if uris.builtin(part.source) is not None:
            how = "mix files, buckets and datasets"
            yield Breach(("sources", number, "source"), f"{part.source} cannot be mixed", "what is built in is a whole by itself", how)


CHANGES = {"rotation": ("rotation",), "randomCrop": ("crop",), "colorJitter": ("brightness", "contrast", "saturation", "hue")}


def strength_is_used(images: Images) -> Iterator[Breach]:
    """A strength of a change that is not made would be read by nobody."""
    usual = Strength()
    for change, names in CHANGES.items():
        for name in names:
            if change not in images.augment and getattr(images.strength, name) != getattr(usual, name):
                what = f"strength.{name} has no effect without {change} in augment"
                yield Breach(("strength", name), what, how=f"add {change} to data.images.augment, or take {name} out", on_key=True)


def _usual(change: str) -> str:
    """In CEL, that a change is made, or its strengths are as they were."""
    plain = " && ".join(f"self.strength.{name} == {getattr(Strength(), name)}" for name in CHANGES[change])
    return f"('{change}' in self.augment || ({plain}))"


_USABLE = (
    "a bucket or an absolute path, no user, query, fragment, space or .. (what a relative path names is on no cluster: copy it to a "
    "bucket, or mount it and name its path there)"
)

RULES = (
    Rule(
        "spec.data",
        "GTJ0106",
        one_source,
        "has(self.source) != (size(self.sources) > 0) && self.sources.all(part, !part.source.startsWith('builtin:'))",
        "name one source, or several sources that are not built in",
    ),
    Rule(
        "spec.data.images",
        "GTJ0108",
        lambda images: sides_fit(images.size, images.buckets),
        SIDES,
        "sides of buckets are multiples of its step, as is data.images.size, which lies between minSide and maxSide",
    ),
    Rule(
        "spec.data.images",
        "GTJ0108",
        strength_is_used,
        " && ".join(map(_usual, CHANGES)),
        "strength says how much a change changes that is not in augment",
    ),
    *(
        Rule(
            path,
            "GTJ0107",
            uris.source,
            uris.SOURCE,
            f"not a usable URI: {_USABLE}; built in are {listed(uris.BUILTINS)}",
        )
        for path in ("spec.data.source", "spec.data.sources.*.source")
    ),
    Rule("spec.data.split.validation", "GTJ0107", uris.split, uris.HELD, f"neither a split's name nor a usable URI: {_USABLE}"),
)
