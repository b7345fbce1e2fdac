"""What is learned from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api import uris
from trainjobs.api.fields import DataUri, Identifier, Model
from trainjobs.api.problem import listed
from trainjobs.api.rule import Rule


class Images(Model):
    """How pictures are read."""

    size: Literal[8, 16, 32, 64, 128, 256] = Field(
        32, description="Height and width in pixels; other sizes are resized and centre-cropped."
    )
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colour.")
    augment: Annotated[list[Literal["horizontalFlip"]], Field(max_length=8)] = Field(
        [], description="Random changes applied to each training image."
    )


class Text(Model):
    """How text is read."""

    field: Identifier = Field("text", description="Field of a JSONL record that holds the text.")


class Data(Model):
    source: DataUri = Field(
        description="Folder or file (file://, s3://, gs://, az://), dataset (hf://), or builtin:digits, shapes, ring, stdlib-text."
    )
    images: Images = Images()
    text: Text = Text()
    holdout: Annotated[float, Field(ge=0, le=0.5)] = Field(0.05, description="Share of the data kept aside for the held-out loss.")


RULES = (
    Rule(
        "spec.data.source",
        "GTJ0107",
        uris.source,
        uris.SOURCE,
        f"not a usable URI: a bucket or an absolute path, no user, query, fragment, space or ..; built in are {listed(uris.BUILTINS)}",
    ),
)
