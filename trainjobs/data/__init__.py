"""The data of a job: where it comes from, in which order it is seen, what a batch is.

    source = open_source(spec, cache)
    batch = source.batch(positions, seed, noise)      # {"image": ...}, {"point": ...} or {"tokens": ...}

Importing this package and calling `preflight` imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo as DataInfo
from trainjobs.data.source import Source as Source
from trainjobs.data.tokens import Tokenizer as Tokenizer

if TYPE_CHECKING:
    from trainjobs.data.holdout import Rule
    from trainjobs.data.origin import Origin

_BUILTIN: dict[str, Literal["image", "point", "text"]] = {
    "builtin:digits": "image",
    "builtin:shapes": "image",
    "builtin:ring": "point",
    "builtin:stdlib-text": "text",
}


def open_source(spec: Spec, cache: Path, *, rule: Rule | None = None, tokenizer: bytes | None = None) -> Source:
    """The data of a job. `cache` is a folder for what is derived from it, which may be shared and may not exist yet. A run that goes on
    gives what it began with: the `rule` by which samples are held out, and its trained `tokenizer`.

    JobError GTJ0107, GTJ0108, GTJ0113 (see `preflight`), and GTJ0114 when `cache` cannot be written.
    """
    from trainjobs.data import digits, documents, images, pixels, ring, text

    data = spec.data
    kind = _kind(spec)
    if kind == "text":
        return text.open_texts(spec, [documents.texts(spec)], cache, rule or rule_of(spec), tokenizer)[0]
    if data.uri == "builtin:ring":
        return ring.open_ring(data)
    if data.uri == "builtin:digits":
        return pixels.ImageSource.of(pixels.readonly(digits.load(data.images.size)), data)
    if data.uri == "builtin:shapes":
        return pixels.open_shapes(data, cache)
    return pixels.open_folder(images.image_files(data.uri), data, cache, rule or rule_of(spec))


def rule_of(spec: Spec) -> Rule:
    """How a run that begins now holds samples out: what is built in cannot grow."""
    return "place" if spec.data.uri.startswith("builtin:") else "name"


def origin_of(spec: Spec) -> Origin:
    """What the data is, cheaply; JobErrors as of `preflight`."""
    from trainjobs.data import documents, images, origin

    if _kind(spec) == "text":
        return origin.origin(spec, documents.text_files(spec.data.uri))
    return origin.origin(spec, None if spec.data.uri.startswith("builtin:") else images.image_files(spec.data.uri))


def preflight(spec: Spec) -> str:
    """What the data is, in a line ("1797 images, 8x8 grey"), found out cheaply and before anything else starts.

    JobError GTJ0107 when data.source cannot be read by this version, GTJ0108 when the family cannot learn from it, GTJ0113 when the
    data is missing, empty, broken or too little.
    """
    from trainjobs.data import digits, documents, images, ring, shapes

    data = spec.data
    if _kind(spec) == "text":
        return documents.found(spec)
    if data.uri == "builtin:ring":
        return f"{ring.COUNT} points around {len(ring.MODES)} modes"
    if data.uri == "builtin:digits":
        digits.path()
        return f"{digits.COUNT} images, {images.describe(data.images)}"
    if data.uri == "builtin:shapes":
        return f"{shapes.COUNT} images, {images.describe(data.images)}"
    return images.found(data)


def _kind(spec: Spec) -> Literal["image", "point", "text"]:
    """What the source yields to this family. A file:// source is text for a language model, images for the others; for a custom job it is
    text when it holds no image."""
    from trainjobs.data import documents, files, images

    source = spec.data.uri
    wanted: Literal["image", "text"] = "text" if spec.language else "image"
    if source.startswith("builtin:"):
        kind = _BUILTIN.get(source)
        if kind is None:
            raise JobError("GTJ0107", f"{source} does not exist", where="data.source", how=f"choose one of {', '.join(_BUILTIN)}")
        if not spec.custom and (kind == "text") != (wanted == "text"):
            raise JobError(
                "GTJ0108",
                f"a {spec.family} job cannot learn from {source}",
                where="data.source",
                why=f"it needs {wanted}s and the source holds {kind}s",
                how="choose another source",
            )
        return kind
    if spec.custom:
        found = files.listing(files.locate(source), images.SUFFIXES + documents.SUFFIXES, "images or text")
        return "image" if any(file.path.suffix.lower() in images.SUFFIXES for file in found) else "text"
    return wanted
