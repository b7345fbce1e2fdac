"""The project's images, built from the Dockerfile without Docker, and brought into the node; of one that is there only what changed.

Debian's buildah builds in a chroot. Where no registry is reached, its base images have a local stand-in: Debian 12 with its Python 3.11,
made by debootstrap, with this machine's certificates. Layers are handed over uncompressed, so that a layer's name says whether the node
has it already: after a change to the code that is a few hundred kilobytes.

    python -m tests.cluster.images [operator] [trainer] [s3]      build, and load into the node when it is up
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.cluster import archive
from tests.cluster.binaries import Unavailable
from tests.cluster.node import Node
from tests.stores import binaries as servers

ROOT = Path(__file__).parents[2]
STORE = Path(os.environ.get("GENTRAIN_IMAGES", "/var/lib/gentrain-images"))
S3 = "localhost/versitygw:1"
BASE = "localhost/python:3.11"
BASE_PACKAGES = "ca-certificates,netbase,python3,python3-dev,python3-pip,tzdata"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
FREE_GB = 30
LARGE = 2**24  # bytes of a layer that is not worth keeping twice


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


def build(target: str) -> str:
    """The image of a target of the Dockerfile, by a name that says its content. Unavailable where it cannot be built."""
    absent = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if absent:
        raise Unavailable(f"no images: apt-get install {' '.join(absent)}")
    if BASE not in built():
        STORE.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(STORE).free < FREE_GB << 30:
            raise Unavailable(f"no images: building, storing and loading them takes {FREE_GB} GB of disk below {STORE}")
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
    """Bring an image that was built into the node; bytes of what it lacked."""
    if name in node.images():
        return 0
    layout = STORE / "layout" / name.rpartition("/")[2].partition(":")[0]
    layers = _pushed(layout, name, node)
    if any(_hollow(layout / one) for one in layers):
        shutil.rmtree(layout)  # the node forgot what is kept here by its size alone
        layers = _pushed(layout, name, node)
    manifest = (layout / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    described = {
        "mediaType": json.loads(manifest)["mediaType"],
        "digest": f"sha256:{digest}",
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": name},
    }
    blobs = {**{one: layout / one for one in layers}, digest: layout / "manifest.json"}
    texts = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": {"schemaVersion": 2, "manifests": [described]}}
    with tempfile.TemporaryDirectory(dir=STORE) as folder:
        path = Path(folder) / "image.tar"
        with tarfile.open(path, "w") as tar:
            for place, content in texts.items():
                (Path(folder) / place).write_text(json.dumps(content))
                tar.add(Path(folder) / place, place)
            for blob, source in blobs.items():
                tar.add(source, f"blobs/sha256/{blob}")
        node.load(path)
        size = path.stat().st_size
    for one in layers:
        _hollow_out(layout / one)
    return size


def _pushed(layout: Path, name: str, node: Node) -> list[str]:
    """Write an image as a folder of blobs; which of them, its configuration included, the node lacks.

    Uncompressed, a blob is named as its layer is, so that buildah writes none a second time.
    """
    layout.mkdir(parents=True, exist_ok=True)
    buildah("push", "--quiet", "--disable-compression", name, f"dir:{layout}")
    manifest = json.loads((layout / "manifest.json").read_text())
    have = node.blobs()
    return [one["digest"].partition(":")[2] for one in (manifest["config"], *manifest["layers"]) if one["digest"] not in have]


def _hollow(path: Path) -> bool:
    status = path.stat()
    return status.st_size > LARGE and status.st_blocks * 512 < status.st_size // 2


def _hollow_out(path: Path) -> None:
    """Keep a large blob's name and size, by which buildah knows that it need not write it, and give its space back."""
    size = path.stat().st_size
    if size > LARGE:
        os.truncate(path, 0)
        os.truncate(path, size)


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


if __name__ == "__main__":
    try:
        provide(Node(), sys.argv[1:] or ["s3", "operator", "trainer"])
    except (Unavailable, RuntimeError) as error:
        sys.exit(str(error))
