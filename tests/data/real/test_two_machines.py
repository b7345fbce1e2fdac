"""Two machines with a rank each, two caches: which bytes each of them fetches for an epoch that no cache holds whole."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.places.memory import Counting, on_disk
from tests.data.places.memory import place as placed
from trainjobs.api.data import Data
from trainjobs.data.ahead import Ahead
from trainjobs.data.forms.open import open_records
from trainjobs.data.order import chosen
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.data.rows import everything
from trainjobs.data.streamed import StreamedImages
from trainjobs.noise import Noise

COUNT, EACH, BATCH = 2560, 32, 64


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)).save(file, "png", compress_level=0)
    return file.getvalue()


def objects(form: str) -> dict[str, bytes]:
    pictures = {f"{number:05d}.png": picture(number) for number in range(COUNT)}
    if form == "files":
        return {f"data/{name}": data for name, data in pictures.items()}
    found = {}
    for start in range(0, COUNT, EACH):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for number in range(start, start + EACH):
                info = tarfile.TarInfo(f"{number:05d}.png")
                info.size = len(pictures[info.name])
                tar.addfile(info, io.BytesIO(pictures[info.name]))
        found[f"data/{start:05d}.tar"] = out.getvalue()
    return found


@pytest.mark.parametrize(("form", "column", "least", "most"), [("files", "image", 1.0, 1.1), ("tar", "png", 1.9, 2.2)])
def test_an_epoch_on_two_machines(form: str, column: str, least: float, most: float, tmp_path: Path) -> None:
    """Of pictures that are objects by themselves each machine fetches its own; a shard is fetched by every machine that reads of it."""
    made = objects(form)
    total, sent, seen = sum(map(len, made.values())), 0, 0
    for rank in range(2):
        bucket = Counting(made)
        place = placed(bucket, "data")
        limit = int(0.7 * total)
        shelf = DiskShelf(tmp_path / f"{rank}", limit, wait=20)
        data = Data.model_validate({"source": "s3://bucket/data", "images": {"size": 8, "channels": 1}})
        records = open_records(place, place.listed(), data, shelf, tmp_path / f"{rank}")
        train = everything(records)
        order = chosen(train, limit, place.uri)
        assert order.kind == "blocks"
        shelf = DiskShelf(tmp_path / f"{rank}" / "epoch", limit, wait=20)  # without what the index was made of
        source = Ahead(StreamedImages.of(train, train, order, data, shelf, {"image": column}), 2)
        batches = [torch.arange(start + rank * BATCH // 2, start + (rank + 1) * BATCH // 2) for start in range(0, COUNT, BATCH)]
        bucket.sent = 0
        for number, positions in enumerate(batches):
            source.expect(batches[number : number + 1 + source.depth(positions)], 0)
            seen += len(source.batch(positions, 0, Noise.of(0, 0, "train", positions))["image"])
            assert on_disk(tmp_path / f"{rank}" / "epoch") <= limit
        source.close()
        sent += bucket.sent
    assert seen == COUNT
    assert least * total <= sent <= most * total
