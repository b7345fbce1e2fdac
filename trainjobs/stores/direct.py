"""Writing a large file past the page cache.

A checkpoint is written once and read perhaps never, and goes to the disk at once. Through the page cache each of its pages is found,
copied into and handed on by itself, two seconds of a processor for a GiB and more, and twice that where a virtual machine has yet to be
given the page; and what training has read goes out of memory to make room. O_DIRECT (open(2)) has the disk read what was mapped.
"""

from __future__ import annotations

import errno
import fcntl
import os

BLOCK = 16 << 20  # bytes of a write; several requests of a disk, or of a network filesystem, at a time
ALIGNED = 4096  # bytes; a multiple of what any disk asks for
DIRECT = getattr(os, "O_DIRECT", 0)  # none outside Linux
REFUSED = {errno.EINVAL, errno.ENOTSUP}  # by filesystems that have no other way, the second by some in user space


def write(descriptor: int, data: memoryview) -> None:
    """Write all of `data`, which begins at a page, to a new file: past the page cache as far as its filesystem can."""
    whole, written = len(data) // ALIGNED * ALIGNED, 0
    direct = bool(whole) and flagged(descriptor, on=True)
    while written < len(data):
        until = min(written + BLOCK, whole if written < whole else len(data))
        if direct and (written >= whole or written % ALIGNED):  # the tail, or after a write that was cut short
            direct = flagged(descriptor, on=False)
        with data[written:until] as block:
            try:
                written += os.write(descriptor, block)
            except OSError as error:
                if not direct or error.errno not in REFUSED:
                    raise
                direct = flagged(descriptor, on=False)  # it says so only now


def flagged(descriptor: int, *, on: bool) -> bool:
    """Whether writes go past the page cache from now on."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | DIRECT if on else flags)
    except OSError as error:
        if not on or error.errno not in REFUSED:
            raise
        return False
    return on and bool(DIRECT)
