"""Images of a few files, made without a builder: what a static program needs to run in a pod.

The archive is what `docker save` writes, which containerd and every other runtime import. The same files give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PAUSE = "localhost/pause:1"

# The first process of a pod: holds its namespaces, and buries children whose parents died.
PAUSE_C = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void on(int s) { if (s == SIGCHLD) while (waitpid(-1, 0, WNOHANG) > 0); else _exit(0); }
int main() { signal(SIGINT, on); signal(SIGTERM, on); signal(SIGCHLD, on); for (;;) pause(); }
"""


def pack(path: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str], user: str = "65532:65532") -> Path:
    """Write an archive of the image `name` to `path`: `files` by their place in the image, executable, and an empty /tmp for everybody."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
        for place, source in sorted(files.items()):
            entry = tarfile.TarInfo(place.lstrip("/"))
            entry.size, entry.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                tar.addfile(entry, content)
    blob = layer.getvalue()
    digest = hashlib.sha256(blob).hexdigest()
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": user, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    written = json.dumps(config).encode()
    title = f"{hashlib.sha256(written).hexdigest()}.json"
    manifest = [{"Config": title, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for place, data in ((title, written), (f"{digest}/layer.tar", blob), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(place)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def pause(folder: Path) -> Path:
    """The archive of the pause image, compiled here: its usual registry is not reached."""
    source, program, path = folder / "pause.c", folder / "pause", folder / "pause.tar"
    if not path.exists():
        source.write_text(PAUSE_C)
        subprocess.run(["gcc", "-Os", "-static", "-o", program, source], check=True)
        pack(folder / "pause.partial", PAUSE, {"/pause": program}, ["/pause"], user="65535:65535").replace(path)
    return path


def name_of(path: Path) -> str:
    """The first name in an archive that `docker save`, `pack` or `buildah push docker-archive:` wrote. ValueError: it has none."""
    with tarfile.open(path) as tar:
        member = tar.extractfile("manifest.json") if "manifest.json" in tar.getnames() else None
        found = json.load(member)[0]["RepoTags"] if member else []
    if not found:
        raise ValueError(f"{path} names no image: it has to be an archive as `docker save` writes it")
    return str(found[0])
