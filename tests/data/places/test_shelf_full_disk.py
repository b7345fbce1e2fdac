"""A cache on a disk that really is full, by what else lies there: in a user namespace, which needs no root."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]

SCRIPT = """
import sys
from pathlib import Path
from tests.data.places.memory import Numbers, below, contents, number, on_disk
from trainjobs.api.errors import JobError
from trainjobs.data.places.shelf import DiskShelf

folder, source = Path(sys.argv[1]), Numbers(piece=1 << 16)
shelf = DiskShelf(folder, 100 << 20)
for each in (number(one, 1_000_000) for one in range(8)):
    with shelf.hold(source, [each]) as (path,):
        assert path.read_bytes() == contents(each)
assert shelf.counts.dropped >= 4, shelf.counts
try:
    with shelf.hold(source, [number(one, 1_000_000) for one in range(10, 15)]):
        raise AssertionError("five do not fit")
except JobError as error:
    print(error.line())
assert not [path for path in below(folder) if path.suffix], [*below(folder)]
assert on_disk(folder) < 4 << 20
with shelf.hold(source, [number(20, 1_000_000)]):
    print("goes on")
"""


def test_room_is_made_on_a_full_disk_and_what_does_not_fit_is_told(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    disk = tmp_path / "disk"
    disk.mkdir()
    run = shlex.join([sys.executable, "-c", SCRIPT, str(disk / "cache")])
    command = f"mount -t tmpfs -o size=4m tmpfs {shlex.quote(str(disk))}; {run}"
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(["unshare", "-Urm", "sh", "-ec", command], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("GTJ0114 the disk is full while data is fetched (")
    assert done.stdout.endswith("No space left on device. free space there, or set data.cache to less than what is free\ngoes on\n")
