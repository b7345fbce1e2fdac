"""The pictures that the benchmark of the input path reads, in three forms, and how torch's DataLoader reads the same."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from trainjobs.data.images import decode

SIDE, SIZE, CHANNELS, BATCH = 256, 64, 3, 64
SHARD = 500  # pictures
FORMS = ("files", "tar", "parquet")


def picture(number: int) -> bytes:
    """A JPEG of 256 pixels, 17 kB: clouds of colour with a little noise, as compressible as a photograph."""
    rng = np.random.default_rng(number)
    clouds = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    noisy = np.asarray(clouds).astype(np.int16) + rng.integers(-12, 13, (SIDE, SIDE, 3), dtype=np.int16)
    file = BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "jpeg", quality=85)
    return file.getvalue()


def written(count: int, folder: Path) -> dict[str, Path]:
    """Folders with so many pictures, by form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folders = {form: folder / form for form in FORMS}
    for one in folders.values():
        one.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        for start in range(0, count, SHARD):
            pictures = list(pool.map(picture, range(start, min(count, start + SHARD))))
            with tarfile.open(folders["tar"] / f"train-{start // SHARD:05d}.tar", "w") as tar:
                for number, data in enumerate(pictures, start):
                    (folders["files"] / f"{number:06d}.jpg").write_bytes(data)
                    for suffix, content in ((".jpg", data), (".cls", str(number % 10).encode())):
                        member = tarfile.TarInfo(f"{number:06d}{suffix}")
                        member.size = len(content)
                        tar.addfile(member, BytesIO(content))
            column = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(pictures, start)]
            features = {"info": {"features": {"image": {"_type": "Image"}}}}
            table = pa.table({"image": column}).replace_schema_metadata({"huggingface": json.dumps(features)})
            pq.write_table(table, folders["parquet"] / f"train-{start // SHARD:05d}.parquet", row_group_size=SHARD // 5)
    return folders


def decoded(data: bytes) -> torch.Tensor:
    return torch.from_numpy(decode(data, SIZE, CHANNELS, "picture").copy())  # what Pillow gives cannot be written to


class Files(Dataset[torch.Tensor]):
    """Any picture by its number; of a bucket each by a request."""

    def __init__(self, names: list[str], bucket: str | None = None) -> None:
        self.names, self.bucket = names, bucket
        self.client: Any = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> torch.Tensor:
        if self.bucket is None:
            return decoded(Path(self.names[number]).read_bytes())
        self.client = self.client or client()
        return decoded(self.client.get_object(Bucket=self.bucket, Key=self.names[number])["Body"].read())


class Shards(IterableDataset[torch.Tensor]):
    """Shards one after the other, dealt to the workers, each read from its front as `webdataset` and streamed `datasets` do."""

    def __init__(self, names: list[str], bucket: str | None = None) -> None:
        self.names, self.bucket = names, bucket

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        remote = client() if self.bucket else None
        for name in self.names[first::step]:
            if remote is not None:
                body = remote.get_object(Bucket=self.bucket, Key=name)["Body"]
                file = BytesIO(body.read()) if name.endswith(".parquet") else body
            else:
                file = open(name, "rb")  # noqa: SIM115
            yield from map(decoded, of_parquet(file) if name.endswith(".parquet") else of_tar(file))


def of_tar(file: Any) -> Iterator[bytes]:
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                yield tar.extractfile(member).read()  # type: ignore[union-attr]


def of_parquet(file: Any) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as found:
        for group in range(found.num_row_groups):
            for row in found.read_row_group(group, columns=["image"], use_threads=False).column("image"):
                yield row.as_py()["bytes"]


def client() -> Any:
    import boto3

    return boto3.client("s3")


def loader(form: str, names: list[str], workers: int, bucket: str | None = None) -> DataLoader[torch.Tensor]:
    """torch's own, with so many processes. Of files every picture at random; of shards in their order."""
    if form == "files":
        return DataLoader(Files(names, bucket), BATCH, shuffle=True, num_workers=workers, drop_last=True)
    return DataLoader(Shards(names, bucket), BATCH, num_workers=workers, drop_last=True)
