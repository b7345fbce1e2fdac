"""Disks that really are full, really read-only, really somebody else's: in a user namespace, which needs no root."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

WRITER = Path(__file__).with_name("full_disk_writer.py")
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ["PATH"]}

pytestmark = pytest.mark.slow


def inside(script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `script` in new namespaces; skips where the kernel does not let us."""
    if subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    return subprocess.run(["unshare", *flags, "sh", "-ec", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


def command(*words: object) -> str:
    return shlex.join([sys.executable, *map(str, words)])


@pytest.mark.parametrize(("stage", "limits", "size"), [("disk/stage", "size=4m,nr_inodes=60", 1000), ("stage", "size=4m", 900_000)])
def test_a_full_disk(stage: str, limits: str, size: int, tmp_path: Path) -> None:
    """Staged on the same disk, a save links and runs out of inodes; staged elsewhere, it copies and runs out of space amid a file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o {limits} tmpfs {shlex.quote(str(disk))}; "
    done = inside(mount + command(WRITER, disk / "store", tmp_path / stage, size, "No space left on device"), "-Urm")
    assert done.returncode == 0, done.stderr


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """EFBIG amid a copy: RLIMIT_FSIZE, as a filesystem's own limit would."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second filesystem to copy from")
    with tempfile.TemporaryDirectory(dir=other) as stage:
        words = [sys.executable, WRITER, tmp_path / "store", f"{stage}/stage", "300000", "File too large", "200000"]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr


PROBE = """
import sys
from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, open_store
checkpoints = Checkpoints(open_store("file://" + sys.argv[1]), keep=Keep())
for act in (checkpoints.probe, checkpoints.begin):
    try:
        act()
    except JobError as error:
        print(error.code, error.why)
"""


def test_a_folder_that_we_may_not_write(tmp_path: Path) -> None:
    """Root may write everywhere, but not from within a user namespace that knows no root."""
    store = tmp_path / "store"
    store.mkdir(mode=0o555)
    done = inside(command("-c", PROBE, store), "-U")
    assert done.stdout.splitlines() == ["GTJ0114 Permission denied", "GTJ0211 Permission denied"], done.stderr


def test_a_read_only_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = inside(f"mount -t tmpfs -o ro tmpfs {shlex.quote(str(disk))}; {command('-c', PROBE, disk / 'store')}", "-Urm")
    assert done.stdout.splitlines() == ["GTJ0114 Read-only file system", "GTJ0211 Read-only file system"], done.stderr
