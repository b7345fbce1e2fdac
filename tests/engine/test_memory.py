"""Freed memory is kept: counted in page faults, by the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import ctypes, resource, sys
from trainjobs.engine.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(77)
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def turn():
    block = c.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    c.free(block)
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROBE, how], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("the C library's allocator takes no such setting")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_a_block_that_is_freed_and_taken_again_costs_no_page_faults() -> None:
    assert faults("kept") < 100


@pytest.mark.slow
def test_canary_glibc_gives_it_back_by_default() -> None:
    """If this fails, the setting has become needless."""
    faults("kept")  # skips where there is no such allocator
    assert faults("as it is") > 100
