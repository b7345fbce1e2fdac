"""Whole tensors out of the slices of all ranks, while their files stream by: nothing is kept, and no tensor is ever in memory.

`wholes` says what there is, from the ranks' indexes; a `Sieve` is fed a rank's file block by block and hands on the wanted elements.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod

from trainjobs.checkpoints.tensors import ITEM, Layout, Slice

Index = Mapping[str, Sequence[Slice]]  # of a rank: by file
Take = Callable[[Slice, int, memoryview], None]


def wholes(indexes: Sequence[Index], file: str, kind: str) -> list[Slice]:
    """The tensors of a kind that the files `file` of all ranks hold together, by key, each as one slice that is the whole.

    ValueError, naming it, for one of which some elements are nowhere, or whose parts do not belong together.
    """
    found: dict[str, list[Slice]] = {}
    for index in indexes:
        for slice in index.get(file, ()):
            if slice.key.startswith(f"{kind}/"):
                found.setdefault(slice.key, []).append(slice)
    whole = []
    for key, slices in sorted(found.items()):
        first, end = slices[0], 0
        if any((slice.shape, slice.dtype) != (first.shape, first.dtype) for slice in slices):
            raise ValueError(f"{key} is not of one shape and type in all files")
        for slice in sorted(slices, key=lambda slice: slice.start):
            if slice.start > end:
                raise ValueError(f"elements {end} to {slice.start} of {key} are missing")
            end = max(end, slice.start + slice.length)
        if end < prod(first.shape):
            raise ValueError(f"elements {end} to {prod(first.shape)} of {key} are missing")
        whole.append(Slice(key, first.dtype, first.shape, 0, prod(first.shape)))
    return whole


class Sieve:
    """`take(slice, first, data)` is called with elements `first` on of the flattened whole tensor of which the file has `slice`."""

    def __init__(self, layout: Layout, wanted: Collection[str], take: Take) -> None:
        """`layout` is that of the file, `wanted` are keys."""
        spans = zip(layout.offsets, layout.slices, strict=True)
        self._spans = sorted((offset, slice) for offset, slice in spans if slice.key in wanted and slice.length)
        self._expected, self._head = layout.header, bytearray()
        self._take, self._position, self._rest = take, 0, b""

    @property
    def fits(self) -> bool:
        """Whether the file that was fed begins as its layout says."""
        return self._head == self._expected

    def feed(self, block: bytes) -> None:
        """The next block of the file; it may end within an element."""
        view, start = memoryview(block), self._position
        self._position += len(block)
        self._head += view[: max(0, len(self._expected) - start)]
        while self._spans:
            offset, slice = self._spans[0]
            low, high = max(offset, start), min(offset + slice.bytes, self._position)
            if low >= high:
                return
            data, item = view[low - start : high - start], ITEM[slice.dtype]
            first = slice.start + (low - offset - len(self._rest)) // item
            if self._rest:
                data = memoryview(self._rest + bytes(data))
            length = len(data) // item * item
            if length:
                self._take(slice, first, data[:length])
            self._rest = bytes(data[length:])
            if high < offset + slice.bytes:
                return
            self._spans.pop(0)
