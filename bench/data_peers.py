"""How `webdataset` and streamed `datasets` read the shards of this machine, where they are installed; they are no dependencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch.utils.data import DataLoader

from bench.pictures import BATCH, decoded

PEERS = {"webdataset": "tar", "datasets": "parquet"}  # and the form that each is for


def installed() -> dict[str, str]:
    """Their versions; "" of one that is not there."""
    found = {}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            found[peer] = ""
    return found


def batches(peer: str, names: Sequence[str], workers: int) -> Iterator[torch.Tensor]:
    """uint8 [B, C, H, W], by a DataLoader with so many processes."""
    source: Any
    if peer == "webdataset":
        import webdataset

        source = webdataset.WebDataset(list(names), shardshuffle=False, empty_check=False).map(of_tar)
    else:
        import datasets

        rows = datasets.load_dataset("parquet", data_files=list(names), split="train", streaming=True)
        source = rows.cast_column("image", datasets.Image(decode=False)).map(of_parquet, remove_columns=["image"])
    for batch in DataLoader(source, BATCH, num_workers=workers, drop_last=True):
        yield batch["image"]


def of_tar(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": decoded(sample["jpg"]).numpy()}


def of_parquet(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": decoded(row["image"]["bytes"]).numpy()}
