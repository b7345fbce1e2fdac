"""A copy of what a rank saves, in host memory that is used again by the next save, laid out as the files that go to the store.

The copy is what training waits for, at most. Optimizer state and weights change only when an optimizer steps, so their copy may go on
beside the next forward and backward pass (`settle` waits for it, in front of the step); buffers change amid a forward pass and are
copied at once. On a GPU the memory is pinned and the copy runs on a stream of its own.

The memory is that of files without a name, which another process reads without a further copy, and which are gone with the processes
that hold them, however those end. Where memory is short they lie on the disk of the run folder.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainjobs.checkpoints.tensors import SUFFIX, Layout, encode_index, layout
from trainjobs.engine import memory
from trainjobs.engine.parts import DTYPES, Part

SPARE = 1.25  # times the size that must be free in memory, times the ranks of this machine
_cuda: Any = torch.cuda  # not typed


class Snapshot:
    """The files of one rank. `take` may be called again when the files of the last one are not read any more."""

    def __init__(self, scratch: Path, device: torch.device, neighbours: int) -> None:
        """`scratch` is a folder on a disk; `neighbours` ranks share this machine."""
        self._scratch, self._device, self._neighbours = scratch, device, neighbours
        self._files: dict[str, _File] = {}
        self._copying: threading.Thread | None = None
        self._error: BaseException | None = None
        self._event: Any = None
        self._stream: Any = _cuda.Stream(device) if device.type == "cuda" else None

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.layout.size for file in self._files.values())

    def take(self, files: Mapping[str, Iterable[Part]], done: Callable[[Mapping[str, int], bytes], None]) -> None:
        """Begin to copy. When all is there, `done` is called from another thread, with open files by name and the contents of index.json.

        The same number stands for the same file, also of an earlier call, as long as it is not closed.
        """
        parts = {f"{name}{SUFFIX}": list(found) for name, found in files.items()}
        layouts = {name: layout(part.slice for part in found) for name, found in parts.items()}
        for name in list(self._files):
            if self._files[name].layout != layouts.get(name):
                self._files.pop(name).close()
        roomy = memory.available() > SPARE * self._neighbours * sum(
            found.size for name, found in layouts.items() if name not in self._files
        )
        for name, found in layouts.items():
            if name not in self._files:
                self._files[name] = _File(found, None if roomy else self._scratch, pinned=self._stream is not None)
        moves = [(self._files[name].views[part.slice.key], part) for name, found in parts.items() for part in found]
        _copy([move for move in moves if move[1].restless])
        later = [move for move in moves if not move[1].restless]
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                _copy(later)
                self._event = self._stream.record_event()
        descriptors, index = {name: file.descriptor for name, file in self._files.items()}, encode_index(layouts)
        self._error = None
        self._copying = threading.Thread(target=self._finish, args=(later, partial(done, descriptors, index)), name="snapshot", daemon=True)
        self._copying.start()

    def settle(self) -> None:
        """Return when what is copied may change."""
        if self._event is not None:
            torch.cuda.current_stream(self._device).wait_event(self._event)  # the device waits, not the host
            self._event = None
        elif self._copying is not None and self._stream is None:
            self.wait()

    def wait(self) -> None:
        """Wait until the copy is complete and `done` has returned. Raises what it raised."""
        if self._copying is not None:
            self._copying.join()
            self._copying = None
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        with suppress(Exception):
            self.wait()
        for file in self._files.values():
            file.close()
        self._files = {}

    def _finish(self, later: list[tuple[Tensor, Part]], done: Callable[[], None]) -> None:
        try:
            if self._stream is not None:
                self._stream.synchronize()
            else:
                _copy(later)
            done()
        except BaseException as error:
            self._error = error


class _File:
    """A file of tensors, mapped into memory, with a view of each. It has no name: in memory, or on the disk of a folder."""

    def __init__(self, found: Layout, folder: Path | None, *, pinned: bool) -> None:
        self.layout, self._pinned = found, pinned
        self.descriptor = memory.nameless(folder)
        # Not just a length: without the blocks, a full disk would be a bus error amid the copy.
        os.posix_fallocate(self.descriptor, 0, found.size)
        self._map = mmap.mmap(self.descriptor, found.size)
        self._map[: len(found.header)] = found.header
        self._whole: Tensor | None = torch.frombuffer(self._map, dtype=torch.uint8)
        if pinned:
            _check(_cuda.cudart().cudaHostRegister(self._whole.data_ptr(), found.size, 0))
        self.views = {
            slice.key: self._whole[offset : offset + slice.bytes].view(DTYPES[slice.dtype])
            for slice, offset in zip(found.slices, found.offsets, strict=True)
        }

    def close(self) -> None:
        if self._pinned and self._whole is not None:
            _check(_cuda.cudart().cudaHostUnregister(self._whole.data_ptr()))
        self.views, self._whole = {}, None
        with suppress(BufferError):  # a view is still alive somewhere: the mapping goes with it
            self._map.close()
        os.close(self.descriptor)


def _copy(moves: list[tuple[Tensor, Part]]) -> None:
    with torch.no_grad():
        for view, found in moves:
            view.copy_(found.tensor.reshape(-1), non_blocking=True)


def _check(code: Any) -> None:
    if int(code) != 0:
        raise RuntimeError(f"host memory cannot be pinned: CUDA error {int(code)}")
