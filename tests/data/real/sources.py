"""Where people keep data: each source of the table, filled on a server of its own kind, and the manifest's `data` for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.data.places.hub_server import Repository, Server
from tests.data.real import made
from tests.stores.servers import Service

COUNT = 60
IMAGES = {"size": 16}

Filled = Callable[[Any, Path], dict[str, Any]]


def bucket(server: Service, files: Mapping[str, bytes]) -> str:
    """The URI of a folder with these files."""
    uri = server.fresh()
    for name, data in files.items():
        server.write(uri, name, data)
    return uri


def of_s3_images(server: Service, _: Path) -> dict[str, Any]:
    return {"source": bucket(server, made.folders(COUNT)), "labels": "folder", "images": IMAGES}


def of_gs_tars(server: Service, _: Path) -> dict[str, Any]:
    return {"source": f"{bucket(server, made.tars(COUNT, 8))}/train-{{00000..00007}}.tar", "images": IMAGES}


def of_az_parquet(server: Service, _: Path) -> dict[str, Any]:
    return {"source": bucket(server, made.parquets(COUNT, 16)), "images": IMAGES}


def of_s3_jsonl(server: Service, _: Path) -> dict[str, Any]:
    return {"source": bucket(server, made.lines(COUNT, 15))}


def of_hub(server: Server, _: Path) -> dict[str, Any]:
    return {"source": "hf://datasets/people/ramps", "images": IMAGES}


def of_folder(_: None, folder: Path) -> dict[str, Any]:
    for name, data in made.folders(COUNT).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {"source": f"file://{folder}", "labels": "folder", "images": IMAGES}


def repositories() -> dict[str, Repository]:
    files = {**made.parquets(48, 16), **made.parquets(12, 12, split="validation"), "README.md": b"# Ramps\n"}
    return {"people/ramps": Repository(files)}


# By name: the server that it is on, and what fills it.
SOURCES: Mapping[str, tuple[str, Filled]] = {
    "s3-images": ("moto", of_s3_images),
    "gs-tars": ("fake-gcs-server", of_gs_tars),
    "az-parquet": ("azurite", of_az_parquet),
    "s3-jsonl": ("moto", of_s3_jsonl),
    "hub-parquet": ("hub", of_hub),
    "folder": ("", of_folder),
}
