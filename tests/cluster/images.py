"""The project's images, built from the Dockerfile without Docker, and brought into the node; of one that is there only what changed.

Debian's buildah builds in a chroot. Where no registry is reached, its base images have a local stand-in: Debian 12 with its Python 3.11,
made by debootstrap, with this machine's certificates. The node gets the layers that it lacks (layers.py).

    python -m tests.cluster.images [operator] [trainer] [s3]      build, and load into the node when it is up
    python -m tests.cluster.images check                          say what is missing for that, and end with 1
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO

from tests.cluster import archive, binaries
from tests.cluster.binaries import Unavailable
from tests.cluster.layers import Layer, Store
from tests.cluster.layers import archive as archive_of
from tests.cluster.node import Node
from tests.cluster.node import missing as missing_of_the_node
from tests.stores import binaries as servers

ROOT = Path(__file__).parents[2]
STORE = Path(os.environ.get("GENTRAIN_IMAGES", "/var/lib/gentrain-images"))
S3 = "localhost/versitygw:1"
BASE = "localhost/python:3.11"
BASE_PACKAGES = "ca-certificates,netbase,python3,python3-dev,python3-pip,tzdata"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
FREE_GB = 30


def buildah(*words: str) -> str:
    """Its output. RuntimeError with the end of all that it said."""
    where = ["--root", str(STORE / "storage"), "--runroot", "/run/gentrain-images", "--storage-driver", "overlay"]
    done = subprocess.run(["buildah", *where, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"buildah {words[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def built() -> set[str]:
    listed = buildah("images", "--json") if shutil.which("buildah") and (STORE / "storage").exists() else "[]"
    return {name for one in json.loads(listed) for name in one.get("names") or ()}


def missing() -> str:
    """Why no image can be built here; empty when they can. Asked before anything that takes minutes."""
    absent = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if absent:
        return f"no images: apt-get install {' '.join(absent)}"
    if BASE not in built():
        STORE.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(STORE).free < FREE_GB << 30:
            return f"no images: building, storing and loading them takes {FREE_GB} GB of disk below {STORE}"
    return ""


def build(target: str) -> str:
    """The image of a target of the Dockerfile, by a name that says its content. Unavailable where it cannot be built."""
    if reason := missing():
        raise Unavailable(reason)
    if BASE not in built():
        _base()
    arguments = {"PYTHON_IMAGE": BASE, "OPERATOR_IMAGE": BASE}
    given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    name = f"localhost/gentrain-{target}"
    buildah("bud", "--isolation", "chroot", "--network", "host", "--layers", "--target", target, *given, "--tag", name, str(ROOT))
    (identity,) = (one["id"] for one in json.loads(buildah("images", "--json")) if f"{name}:latest" in (one.get("names") or ()))
    buildah("tag", name, f"{name}:{identity}")
    return f"{name}:{identity}"


def _base() -> None:
    with tempfile.TemporaryDirectory(dir=STORE) as folder:
        root = Path(folder) / "root"
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root], check=True, stdout=sys.stderr)
        for packages in root.glob("var/cache/apt/archives/*.deb"):
            packages.unlink()
        # As in the image that this one stands in for, Python is the image's own to install into.
        for mark in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            mark.unlink()
        (root / "usr/bin/python").symlink_to("python3")
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(f"/{CERTIFICATES}", root / CERTIFICATES)
        (root / "etc/uv").mkdir()
        (root / "etc/uv/uv.toml").write_text("system-certs = true\n")  # the system's certificates, not uv's own
        recipe = "FROM scratch\nADD root /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        (Path(folder) / "Dockerfile").write_text(recipe)
        buildah("bud", "--isolation", "chroot", "--tag", BASE, folder)


def load(node: Node, name: str) -> int:
    """Bring an image that was built into the node; bytes of the layers that it lacked."""
    if name in node.images():
        return 0
    store, have = Store(STORE / "storage", STORE / "layers.json"), node.blobs()
    layers: list[Layer] = []
    with contextlib.ExitStack() as stack:
        content: dict[str, Callable[[], IO[bytes]]] = {}
        for layer in store.layers(name.rpartition(":")[2]):
            known = store.packed(layer)
            if known is None or known.digest not in have:
                path = Path(stack.enter_context(tempfile.NamedTemporaryFile(dir=STORE, prefix="layer-")).name)
                with path.open("wb") as file:
                    known = store.pack(layer, file)
                content[known.digest] = partial(path.open, "rb")
            layers.append(known)
        config = json.loads(buildah("inspect", "--type", "image", "--format", "{{.Config}}", name))
        node.receive(partial(archive_of, name, config, layers, content))
    return sum(layer.size for layer in layers if layer.digest in content)


def store_server() -> Path:
    """An archive of the S3 server's image."""
    try:
        program = servers.binary("versitygw")
    except servers.Unavailable as reason:
        raise Unavailable(str(reason)) from reason
    STORE.mkdir(parents=True, exist_ok=True)
    return archive.pack(STORE / "versitygw.tar", S3, {"/versitygw": program}, ["/versitygw"], user="1000:1000")


def provide(node: Node, names: Iterable[str], say: Callable[[str], None] = print) -> dict[str, str]:
    """Build and load what `names` names: operator, trainer, s3. The names of their images."""
    found = {}
    for name in names:
        began = time.monotonic()
        if name == "s3":
            node.load(store_server())
            found[name] = S3
            continue
        image = found[name] = build(name)
        took = time.monotonic() - began
        size = load(node, image) if node.ready() else 0
        say(f"{image}: built in {took:.0f} s, {size / 1e6:.1f} MB loaded in {time.monotonic() - began - took:.0f} s")
    return found


def check() -> str:
    """Everything that a cluster with the project's images lacks on this machine, a line each, before anything is built."""
    return "\n".join(reason for reason in (missing_of_the_node(), binaries.missing(), missing()) if reason)


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(check() or None)
    try:
        provide(Node(), sys.argv[1:] or ["s3", "operator", "trainer"])
    except (Unavailable, RuntimeError) as error:
        sys.exit(str(error))
