"""An image of buildah's store, handed over as the layers that the receiver lacks.

`buildah push` reads and writes all of an image, gigabytes, each time. Here a layer is packed from its folder in the overlay store, once,
and an archive holds only what its reader does not have: after a change to the code that is some megabytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True)
class Layer:
    """`digest` is that of the tar as it is handed over."""

    digest: str
    size: int

    def described(self) -> dict[str, Any]:
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": self.digest, "size": self.size}


class Store:
    """buildah's store in `folder`, with its overlay driver. What its layers are when packed is remembered in `memory`."""

    def __init__(self, folder: Path, memory: Path) -> None:
        self._folder, self._memory = folder, memory

    def layers(self, image: str) -> list[str]:
        """The layers of an image by its id or a beginning of it, the lowest first."""
        found = json.loads((self._folder / "overlay-images" / "images.json").read_text())
        parents = {one["id"]: one.get("parent") for one in json.loads((self._folder / "overlay-layers" / "layers.json").read_text())}
        layer = next(one["layer"] for one in found if one["id"].startswith(image))
        chain = []
        while layer:
            chain.append(layer)
            layer = parents[layer]
        return chain[::-1]

    def pack(self, layer: str, into: IO[bytes]) -> Layer:
        """Write a layer's tar; the same layer gives the same bytes."""
        hashed = _Hashed(into)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for path, name in _files(self._folder / "overlay" / layer / "diff"):
                _add(tar, path, name)
        packed = Layer(f"sha256:{hashed.digest.hexdigest()}", hashed.size)
        self._memory.write_text(json.dumps({**self._known(), layer: [packed.digest, packed.size]}))
        return packed

    def packed(self, layer: str) -> Layer | None:
        """What `pack` once made of a layer."""
        return Layer(*self._known()[layer]) if layer in self._known() else None

    def _known(self) -> dict[str, Any]:
        known: dict[str, Any] = json.loads(self._memory.read_text()) if self._memory.exists() else {}
        return known


class _Hashed(io.RawIOBase):
    def __init__(self, inner: IO[bytes]) -> None:
        self._inner, self.digest, self.size = inner, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._inner.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Everything below a folder, in an order that is always the same, folders before what is in them."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(place) / name
            yield path, str(path.relative_to(folder))


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    status = path.lstat()
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # overlay's word for a file that is gone
        parent, _, last = name.rpartition("/")
        tar.addfile(tarfile.TarInfo(f"{parent}/{WHITEOUT}{last}" if parent else f"{WHITEOUT}{last}"))
        return
    tar.add(path, name, recursive=False)
    if stat.S_ISDIR(status.st_mode):
        with contextlib.suppress(OSError):
            if os.getxattr(path, "trusted.overlay.opaque") == b"y":
                tar.addfile(tarfile.TarInfo(f"{name}/{OPAQUE}"))


def archive(name: str, config: dict[str, Any], layers: list[Layer], content: dict[str, Callable[[], IO[bytes]]], out: IO[bytes]) -> None:
    """Write an OCI archive of an image `name`. `config` is its configuration, with any diff_ids; `content` opens the layers to include."""
    written = json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _digest(written), "size": len(written)},
        "layers": [layer.described() for layer in layers],
    }
    text = json.dumps(manifest).encode()
    entry = {"mediaType": manifest["mediaType"], "digest": _digest(text), "size": len(text)}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {"io.containerd.image.name": name}}]}
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for place, data in (
            ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
            ("index.json", json.dumps(index).encode()),
            (f"blobs/{_digest(text).replace(':', '/')}", text),
            (f"blobs/{_digest(written).replace(':', '/')}", written),
        ):
            info = tarfile.TarInfo(place)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for layer in layers:
            if layer.digest in content:
                info = tarfile.TarInfo(f"blobs/{layer.digest.replace(':', '/')}")
                info.size = layer.size
                with content[layer.digest]() as file:
                    tar.addfile(info, file)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
