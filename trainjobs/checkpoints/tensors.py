"""Tensors as files: the safetensors format, for tensors of which a file holds a part.

    8 bytes            length of the header, little-endian
    the header         JSON: {"__metadata__": {...}, "<key>": {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}, ...}
    the data           the tensors one behind the other, no gaps; offsets count from here

A tensor of which a file holds only some elements (ZeRO cuts flattened tensors wherever the worker's share ends) is stored flat, as
those elements; `__metadata__.slices` says which: {"<key>": [first element, [shape of the whole tensor]]} as JSON. Any reader of safetensors
reads the file, and nothing in it is code. https://huggingface.co/docs/safetensors

Equal contents are equal bytes, whoever writes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SUFFIX, INDEX = ".safetensors", "index.json"
FORMAT = "1"
ITEM = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True)
class Slice:
    """Elements `start` to `start + length` of a flattened tensor. `shape` is that of the whole tensor, [] of a single number."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int

    @property
    def whole(self) -> bool:
        return self.length == math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.length * ITEM[self.dtype]


@dataclass(frozen=True)
class Layout:
    """Where each slice lies in a file: `offsets[i]` is the position of the first byte of `slices[i]`, counted from the file's beginning."""

    slices: tuple[Slice, ...]
    header: bytes
    offsets: tuple[int, ...]
    size: int


def layout(slices: Iterable[Slice], beside: Mapping[str, str] | None = None) -> Layout:
    """The file of these slices. ValueError for a key that comes twice. Large items come first, so that every item is aligned.

    `beside` is what `__metadata__` says, in place of the slices: for whole tensors.
    """
    ordered = tuple(sorted(slices, key=lambda slice: (-ITEM[slice.dtype], slice.key)))
    if len({slice.key for slice in ordered}) < len(ordered):
        raise ValueError("a key comes twice")
    entries: dict[str, Any] = {}
    begins, position = [], 0
    for slice in ordered:
        shape = list(slice.shape) if slice.whole else [slice.length]
        entries[slice.key] = {"dtype": slice.dtype, "shape": shape, "data_offsets": [position, position + slice.bytes]}
        begins.append(position)
        position += slice.bytes
    cut = {slice.key: [slice.start, list(slice.shape)] for slice in ordered if not slice.whole}
    ours = {"gentrain": FORMAT, "slices": json.dumps(cut, sort_keys=True, separators=(",", ":"))}
    metadata = ours if beside is None else dict(beside)
    text = json.dumps({"__metadata__": metadata, **entries}, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return Layout(ordered, header, tuple(len(header) + begin for begin in begins), len(header) + position)


def read_layout(start: bytes) -> Layout:
    """The layout of a file whose first bytes these are, at least its whole header. ValueError for anything else."""
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 + length:
        raise ValueError("the header is cut off")
    fields = json.loads(start[8 : 8 + length])
    metadata = fields.pop("__metadata__", {})
    cut: Mapping[str, Sequence[Any]] = json.loads(metadata.get("slices", "{}"))
    found, offsets, end = [], [], 8 + length
    for key, entry in fields.items():
        dtype, (begin, until) = str(entry["dtype"]), entry["data_offsets"]
        first, shape = cut.get(key, (0, entry["shape"]))
        slice = Slice(key, dtype, tuple(shape), first, (until - begin) // ITEM[dtype])
        if slice.bytes != until - begin or first + slice.length > math.prod(shape):
            raise ValueError(f"{key} does not fit its own description")
        found.append(slice)
        offsets.append(8 + length + begin)
        end = max(end, 8 + length + until)
    return Layout(tuple(found), start[: 8 + length], tuple(offsets), end)


@dataclass(frozen=True)
class Overlap:
    """`length` elements that a slice of a file and a wanted slice share: from `source` on in the one, from `target` on in the other."""

    source: int
    target: int
    length: int


def overlap(have: Slice, want: Slice) -> Overlap | None:
    """What two slices of one tensor have in common."""
    begin, end = max(have.start, want.start), min(have.start + have.length, want.start + want.length)
    return Overlap(begin - have.start, begin - want.start, end - begin) if begin < end else None


def encode_index(layouts: Mapping[str, Layout]) -> bytes:
    """index.json: the slices of a rank's files, by file name, so that a reader knows what is where before it fetches gigabytes."""
    files = {name: {s.key: [s.dtype, list(s.shape), s.start, s.length] for s in found.slices} for name, found in layouts.items()}
    return json.dumps({"format": FORMAT, "files": files}, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def decode_index(data: bytes) -> dict[str, list[Slice]]:
    """ValueError for what is no index."""
    try:
        fields = json.loads(data)
        return {
            file: [Slice(key, dtype, tuple(shape), start, length) for key, (dtype, shape, start, length) in found.items()]
            for file, found in fields["files"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no index of tensors ({error!r})") from error
