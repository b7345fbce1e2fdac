"""Data as people have it, in every form, made small: files by name with their bytes. The same samples whatever the form.

Written with the libraries of the field (PIL, tarfile, pyarrow), not by code under test.
"""

from __future__ import annotations

import io
import json
import tarfile
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = ("red", "green", "blue")


@cache
def picture(number: int, size: int = 24, form: str = "PNG") -> bytes:
    """One of a kind: a ramp in one of three colours, with its number in the corner's pixels."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[..., number % 3] = 55 + (200 * np.add.outer(np.arange(size), np.arange(size))) // (2 * size)
    for bit in range(12):
        x, y = 2 * bit % size, 2 * (2 * bit // size)
        pixels[y : y + 2, x : x + 2] = 255 if number >> bit & 1 else 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def caption(number: int) -> str:
    return f"a {COLOURS[number % 3]} ramp"


def folders(count: int) -> dict[str, bytes]:
    """Pictures in a folder for each class."""
    return {f"{COLOURS[number % 3]}/{number:05d}.png": picture(number) for number in range(count)}


def tars(count: int, each: int) -> dict[str, bytes]:
    """WebDataset shards: picture, class and caption of each sample."""
    shards = {}
    for shard, start in enumerate(range(0, count, each)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for number in range(start, min(start + each, count)):
                for suffix, data in ("png", picture(number)), ("cls", str(number % 3).encode()), ("txt", caption(number).encode()):
                    info = tarfile.TarInfo(f"{number:05d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        shards[f"train-{shard:05d}.tar"] = out.getvalue()
    return shards


def parquets(count: int, each: int, group: int = 8, split: str = "train") -> dict[str, bytes]:
    """As the Hugging Face hub has them: a struct of bytes and path, and a class by its number, whose name the schema knows."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": list(COLOURS), "_type": "ClassLabel"}, "caption": {"dtype": "string"}}
    schema = pa.schema([("image", image), ("label", pa.int64()), ("caption", pa.string())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    shards, total = {}, -(-count // each)
    for shard, start in enumerate(range(0, count, each)):
        numbers = range(start, min(start + each, count))
        rows = {
            "image": [{"bytes": picture(number), "path": f"{number}.png"} for number in numbers],
            "label": [number % 3 for number in numbers],
            "caption": [caption(number) for number in numbers],
        }
        out = io.BytesIO()
        pq.write_table(pa.table(rows, schema=schema), out, row_group_size=group)
        shards[f"data/{split}-{shard:05d}-of-{total:05d}.parquet"] = out.getvalue()
    return shards


def lines(count: int, each: int) -> dict[str, bytes]:
    """JSONL: a text and a number a record."""
    shards = {}
    for shard, start in enumerate(range(0, count, each)):
        records = (
            json.dumps({"id": number, "text": f"Record {number} squared is {number * number}. " * 3})
            for number in range(start, start + each)
        )
        shards[f"part-{shard:03d}.jsonl"] = "".join(f"{record}\n" for record in records).encode()
    return shards
