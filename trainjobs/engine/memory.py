"""How this process holds its memory, and how much there is."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # the uploader's process imports this module, and no torch: two seconds and 300 MB for each worker

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Have the C library's allocator keep up to 1 GiB of what is freed, for the next step; says whether it agreed.

    By default glibc hands large blocks back to the kernel as soon as they are free. A training step frees and allocates the same
    activations again, and each page of them then costs a fault: 8 % of the time of a small UNet on a CPU. Other C libraries are left
    as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(_M_MMAP_THRESHOLD, _KEPT) and mallopt(_M_TRIM_THRESHOLD, _KEPT))


def available(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that could be taken now: the machine's, or what the limit of this container leaves; 0 where nobody tells."""
    found = []
    with suppress(OSError, ValueError):
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # the second pair is of the older kind of cgroups; no limit is "max", or a number beyond all
            found.append(int((cgroups / limit).read_text()) - int((cgroups / used).read_text()))
    return max(0, min(found, default=0))


def nameless(folder: Path | None = None) -> int:
    """An open, empty file without a name: in memory, where there are such files, or on the disk of `folder`."""
    if folder is None and sys.platform == "linux":
        return os.memfd_create("gentrain")
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def device_memory(device: torch.device) -> int:
    """Bytes of memory of the device: the GPU's, or this process's share of the machine's."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
