"""The input path: how fast it is, what it holds, and how long it takes to begin; beside torch's DataLoader and `tokenizers`.

`python -m bench.data <rounds>` prints JSON. Each round reads every picture, ours and the DataLoader's taking turns, with as many threads of
ours as processes of its, and the same decoding; both begin with no more than where the data is, and ours makes its index first. Of a
bucket everything is fetched anew in each round; a second epoch of ours, timed by itself, finds the index and what fits the cache on this
machine. GENTRAIN_PICTURES says how many pictures there are, GENTRAIN_OBJECTS how many objects lie in the bucket of which the first batch is
timed.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.data_peers import PEERS, batches, installed
from bench.data_table import BUSY
from bench.pictures import BATCH, CHANNELS, FORMS, SIZE, client, loader, picture, written
from bench.training import FAMILIES, SEED, manifest
from tests.stores.servers import BUCKET, service
from trainjobs.api.data import Data
from trainjobs.api.job import Job, Spec
from trainjobs.data.ahead import Ahead
from trainjobs.data.order import chosen
from trainjobs.data.pixels import scaled
from trainjobs.data.rows import divided
from trainjobs.data.streamed import StreamedImages
from trainjobs.engine.memory import keep_freed_memory
from trainjobs.noise import Noise
from trainjobs.world import World

PICTURES = int(os.environ.get("GENTRAIN_PICTURES", "4000"))  # 20,000 take ten minutes more
OBJECTS = int(os.environ.get("GENTRAIN_OBJECTS", "100000"))
WORKERS = 2
MEMBERS = 100_000  # of the shard whose index is measured
TEXT = 20_000_000  # bytes
COLUMNS = {"files": "image", "tar": "jpg", "parquet": "image"}


def opened(uri: str, form: str, cache: Path, threads: int) -> Ahead:
    """Our source of the pictures at a URI."""
    from trainjobs.data.forms.open import open_records
    from trainjobs.data.places.open import open_place
    from trainjobs.data.places.shelf import DiskShelf

    data = Data.model_validate({"source": uri, "images": {"size": SIZE, "channels": CHANNELS}, "holdout": 0.0})
    place, shelf = open_place(uri), DiskShelf(cache / "objects", 100 << 30)
    records = open_records(place, place.listed(), data, shelf, cache)
    train, held = divided(records, data, "image")
    roles = {"image": COLUMNS[form]}
    return Ahead(StreamedImages.of(train, held, chosen(train, shelf.limit, uri), data, shelf, roles), threads)


def stretches(length: int, epoch: int = 0) -> list[torch.Tensor]:
    """The positions of an epoch's batches."""
    return list((epoch * length + torch.arange(length // BATCH * BATCH)).split(BATCH))


def ours(source: Ahead, epoch: int = 0) -> Iterator[torch.Tensor]:
    batches = stretches(source.info.length, epoch)
    depth = source.depth(batches[0])
    for number, positions in enumerate(batches):
        source.expect(batches[number : number + 1 + depth], SEED)
        yield source.batch(positions, SEED, Noise.of(SEED, 0, "bench", positions))["image"]


@dataclass(frozen=True)
class Speed:
    """Samples a second, and a second of a processor: of this process and of those that it started and has seen the end of. Where others use
    the machine meanwhile the second is the one to look at."""

    rate: float
    busy: float


def speed(batches: Iterator[torch.Tensor]) -> Speed:
    began, before, count = time.perf_counter(), processor(), 0
    for batch in batches:
        count += len(batch)
    return Speed(count / (time.perf_counter() - began), count / (processor() - before))


def processor() -> float:
    """Seconds."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def names_of(uri: str) -> tuple[list[str], str | None]:
    """What the DataLoader reads: paths, or keys of a bucket."""
    if uri.startswith("file"):
        return sorted(str(path) for path in Path(uri.removeprefix("file://")).iterdir()), None
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=uri.removeprefix(f"s3://{BUCKET}/") + "/")
    return sorted(item["Key"] for page in pages for item in page["Contents"]), BUCKET


def reading(places: dict[str, str], scratch: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """By form and place, the rates of each round. The first round warms up. Peers that are not installed are left out."""
    keep_freed_memory()  # as every worker does
    found: dict[str, list[dict[str, float]]] = {}
    versions = installed()
    for turn in range(-1, rounds):
        for key, uri in places.items():
            form = key.split()[0]
            cache = scratch / "cache"
            shutil.rmtree(cache, ignore_errors=True)

            def theirs() -> dict[str, Speed]:
                def read() -> Iterator[torch.Tensor]:
                    names, bucket = names_of(uri)  # noqa: B023
                    yield from (scaled(rows) for rows in loader(form, names, WORKERS, bucket))  # noqa: B023

                return {"loader": speed(read())}

            def mine() -> dict[str, Speed]:
                kept: list[Ahead] = []

                def read() -> Iterator[torch.Tensor]:
                    kept.append(opened(uri, form, cache, WORKERS))  # noqa: B023
                    yield from ours(kept[0])

                try:
                    return {"ours": speed(read()), "second": speed(ours(kept[0], 1))}
                finally:
                    kept[0].close()

            pair = mine() | theirs() if turn % 2 else theirs() | mine()
            for peer in (peer for peer, of in PEERS.items() if of == form and uri.startswith("file") and versions[peer]):
                pair[peer] = speed(scaled(rows) for rows in batches(peer, names_of(uri)[0], WORKERS))
            if turn >= 0:
                rates = {name: each.rate for name, each in pair.items()}
                found.setdefault(key, []).append(rates | {f"{name}{BUSY}": each.busy for name, each in pair.items()})
    return found


def keeping(folder: Path, scratch: Path) -> dict[str, float]:
    """Seconds of a processor for a gigabyte of what ours does with what it fetches, and the DataLoader does not: the MD5 that the store
    tells of each object, and a file on disk."""
    data = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    before = processor()
    hashlib.md5(data, usedforsecurity=False).digest()
    digested = processor()
    with open(scratch / "kept", "wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    gigabytes = len(data) / 1e9
    return {"digest": (digested - before) / gigabytes, "file": (processor() - digested) / gigabytes}


def memory(uri: str, scratch: Path) -> dict[str, float]:
    """Bytes that preparing takes, by worker: what a process of ours grows by while its threads prepare, beyond what reading one batch took;
    and what is their own alone of the DataLoader's processes."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # which has not grown yet
        grown = pool.submit(growth, uri, scratch / "memory").result()
    process = psutil.Process()
    before, their = set(process.children()), 0  # what multiprocessing keeps beside
    for _ in loader("tar", names_of(uri)[0], WORKERS):
        their = max(their, sum(child.memory_full_info().uss for child in {*process.children()} - before))
    return {"ours": grown / WORKERS, "loader": their / WORKERS}


def growth(uri: str, cache: Path) -> int:
    with closing(opened(uri, "tar", cache, WORKERS)) as source:
        batches = ours(source)
        next(batches)
        process = psutil.Process()
        before = most = process.memory_info().rss
        for _ in batches:
            most = max(most, process.memory_info().rss)
    return most - before


def index(scratch: Path) -> dict[str, float]:
    """Bytes for a million samples: of what the index of shards holds, and of which rows are trained on with two epochs' order."""
    import tarfile
    from io import BytesIO

    from trainjobs.data.forms.open import open_records
    from trainjobs.data.places.open import open_place
    from trainjobs.data.places.shelf import DiskShelf

    folder = scratch / "members"
    folder.mkdir()
    with tarfile.open(folder / "train.tar", "w") as tar:
        for number in range(MEMBERS):
            member = tarfile.TarInfo(f"{number:08d}.jpg")
            member.size = 1
            tar.addfile(member, BytesIO(b"."))
    uri = f"file://{folder}"
    data = Data.model_validate({"source": uri})
    tracemalloc.start()
    place = open_place(uri)
    records = open_records(place, place.listed(), data, DiskShelf(scratch / "none", 1 << 30), scratch / "index")
    held = tracemalloc.get_traced_memory()[0]
    train, _ = divided(records, data, "image")
    rows = tracemalloc.get_traced_memory()[0] - held
    tracemalloc.stop()
    epochs = 2 * 4  # two permutations of int32, where a batch spans epochs
    return {"records": held / MEMBERS * 1e6, "rows": rows / len(train) * 1e6, "order": epochs * 1e6}


def first_batch(server: Any, data: Path, scratch: Path) -> dict[str, float]:
    """Seconds from nothing to the first batch of a bucket with so many objects."""
    folder = data / BUCKET / "many"
    folder.mkdir()
    pictures = [picture(number) for number in range(16)]
    for number in range(OBJECTS):
        (folder / f"{number:06d}.jpg").write_bytes(pictures[number % 16])
    began = time.perf_counter()
    with closing(opened(f"s3://{BUCKET}/many", "files", scratch / "many", WORKERS)) as source:
        listed = time.perf_counter() - began
        next(ours(source))
        return {"objects": source.info.length, "opened": listed, "batch": time.perf_counter() - began}


def waiting(folder: Path, scratch: Path) -> dict[str, float]:
    """The share of the steps' time that training waits for data: a DCGAN on shards of pictures, a language model on text."""
    import torch.distributed as dist

    from trainjobs.loop import train
    from trainjobs.world import backend

    keep_freed_memory()
    dist.init_process_group(backend(False), init_method=f"file://{scratch}/store", rank=0, world_size=1)
    found = {}
    for family, source in (("gan", {"source": f"file://{folder}", "images": {"size": 32, "channels": 3}}), ("language", None)):
        case = {**FAMILIES[family], "steps": 40} | ({"data": source} if source else {})
        run = scratch / f"waiting-{family}"
        run.mkdir()
        train(Job.model_validate(manifest(family, case)), run, World(0, 1, torch.device("cpu")))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        shares = [row["data/wait"] for row in rows if "data/wait" in row][1:]  # the first steps wait for the first batch
        found[family] = sum(shares) / len(shares)
    dist.destroy_process_group()
    return found


def tokens(scratch: Path) -> dict[str, dict[str, float]]:
    """Tokens a second of preparing text, ours from the files to the tokens on disk, and `tokenizers` alone on texts in memory: for bytes
    with an alphabet of bytes and no merges, which gives the same tokens but for their numbers."""
    import sysconfig

    from trainjobs.data import open_source
    from trainjobs.data.text import TextSource
    from trainjobs.data.tokens import BpeTokenizer

    folder, size, texts = scratch / "texts", 0, list[str]()
    folder.mkdir()
    for number, path in enumerate(sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))):
        texts.append(path.read_text(encoding="utf-8", errors="ignore"))
        (folder / f"{number:05d}.txt").write_text(texts[-1], encoding="utf-8")
        size += len(texts[-1])
        if size > TEXT:
            break
    found = {}
    for kind in ("byte", "bpe"):
        asked = {"type": kind} | ({"vocabularySize": 4096} if kind == "bpe" else {})
        spec = Spec.model_validate({"language": {"tokenizer": asked}, "data": {"source": f"file://{folder}"}, "training": {"steps": 1}})
        tokenizer = open_source(spec, scratch / f"cache-{kind}").info.tokenizer
        kept = next((scratch / f"cache-{kind}").glob("tokenizer-*.json"), None)
        (scratch / f"again-{kind}").mkdir()
        if kept is not None:
            shutil.copy(kept, scratch / f"again-{kind}" / kept.name)  # it is trained once, and is not what is timed
        began = time.perf_counter()
        source = open_source(spec, scratch / f"again-{kind}")
        assert isinstance(source, TextSource)
        took = time.perf_counter() - began
        count = sum(rows.shape[0] * (rows.shape[1] - 1) for rows in (source.sequences, source.held))
        began = time.perf_counter()
        alone = counted(tokenizer.inner if isinstance(tokenizer, BpeTokenizer) else of_bytes(), texts)
        found[kind] = {"ours": count / took, "alone": alone / (time.perf_counter() - began)}
    return found


def counted(inner: Any, texts: Sequence[str]) -> int:
    return sum(len(row.ids) for row in inner.encode_batch_fast(list(texts)))


def of_bytes() -> Any:
    """One token for each byte, by the library."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return inner


def measure(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folders = written(PICTURES, scratch / "pictures")
        (scratch / "server").mkdir()
        with service("versitygw", scratch / "server") as server:
            os.environ |= server.environ()
            for form, folder in folders.items():
                for path in folder.iterdir():
                    client().upload_file(str(path), BUCKET, f"{form}/{path.name}") if form != "files" else None
            stored = scratch / "server" / "versitygw"
            shutil.copytree(folders["files"], stored / BUCKET / "files")
            places = {f"{form} local": f"file://{folders[form]}" for form in FORMS}
            places |= {f"{form} s3": f"s3://{BUCKET}/{form}" for form in FORMS}
            row: dict[str, Any] = {"pictures": PICTURES, "workers": WORKERS, "rates": reading(places, scratch, rounds)}
            row["peers"] = installed()
            row["keeping"] = keeping(folders["tar"], scratch)
            row["memory"] = memory(places["tar local"], scratch)
            row["index"] = index(scratch)
            row["first"] = first_batch(server, stored, scratch)
        row["tokens"] = tokens(scratch)
        row["waiting"] = waiting(folders["tar"], scratch)
    return row


if __name__ == "__main__":
    print(json.dumps([measure(int(sys.argv[1]))]))
    sys.stdout.flush()
    os._exit(0)
