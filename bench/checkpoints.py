"""What a checkpoint costs: the time that training stands still, the rate of the upload, processor time, bytes; beside other ways to save.

`python -m bench.checkpoints <rounds>` measures in this process, one thread, one rank, ZeRO stage 0, fp32, AdamW, and prints JSON. In each
round everything takes its turn, so that a ratio compares neighbours in time:

copy        every tensor that is saved, copied into memory that was used before: the floor of any save
blocking    Saver.save and settle at once: what training waits for when nothing hides it
lazy        Saver.save, then settle in front of the next optimizer step, as the loop does
deepspeed   engine.save_checkpoint into a folder
ray         the same files, written by torch.save, through Ray Train's own upload into another folder
dcp         torch.distributed.checkpoint.async_save: until it returns, and until it is done
sink        the bytes of a checkpoint written plainly: to a file and synced; to an S3 server by as many connections, nothing hashed
upload      ours, by the uploader: from the request to its answer; with the processor time of the uploader's process
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from tests.stores.servers import service
from trainjobs.api.checkpoints import Keep
from trainjobs.api.job import Spec
from trainjobs.checkpointer.saver import Saver
from trainjobs.checkpointer.trained import Trained
from trainjobs.engine.engine import Engine, connect
from trainjobs.optim.groups import grouped
from trainjobs.state import State
from trainjobs.workers.process import leave
from trainjobs.world import World

WIDTH, LAYERS, BATCH = 2048, 8, 96  # 34 million parameters, 0.4 GB of checkpoint, a step of about a second
EVERY = 10  # steps between saves, where steps are timed
PART = 16 << 20


class Network(nn.Module):
    """`frozen`: the layers are a base that is not trained, with adapters of rank 16 beside them (LoRA, Hu et al. 2021)."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.base = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
        self.down = nn.ModuleList(nn.Linear(WIDTH, 16, bias=False) for _ in range(LAYERS if frozen else 0))
        self.up = nn.ModuleList(nn.Linear(16, WIDTH, bias=False) for _ in range(LAYERS if frozen else 0))
        self.base.requires_grad_(not frozen)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.base):
            beside = self.up[number](self.down[number](x)) if self.down else 0.0
            x = torch.relu(layer(x) + beside) + x
        return x


def engine(network: nn.Module, world: World) -> Engine:
    spec = Spec.model_validate(
        {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1, "batch": {"global": BATCH}},
         "compute": {"gpusPerWorker": 0}, "deepspeed": {"config": {"steps_per_print": 2**31 - 1}}}
    )  # fmt: skip
    # Something of DeepSpeed's is set, as it is anyway: else there were no engine of DeepSpeed's, whose checkpoints are compared with ours.
    groups = grouped("net", network, None, {}, spec.training.optimizer)
    return Engine("net", network, groups, spec, 0, BATCH, world)


def step(trained: Trained, x: torch.Tensor, before: Callable[[], None] = lambda: None) -> None:
    net = trained.engines["net"]
    net.set_rates(1.0)
    net.backward((net.module(x) - x).square().mean())
    before()
    net.step()
    trained.state.step += 1
    trained.state.samples += len(x)


@contextmanager
def saving(trained: Trained, uri: str, folder: Path, world: World, last: int = 1) -> Iterator[Saver]:
    saver = Saver(uri, Keep(last=last), trained, world, {}, folder)
    yield saver
    saver.finish(required=True)
    saver.close()


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    world = World(0, 1, torch.device("cpu"))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    connect(world)
    torch.manual_seed(0)
    trained = Trained({"net": engine(Network(), world)}, State(), None)
    x = torch.randn(BATCH, WIDTH)
    step(trained, x)
    size = sum(part.slice.bytes for part in trained.parts("net", own=True))
    found: dict[str, Any] = {"bytes": size, "parameters": WIDTH * WIDTH * LAYERS, "every": EVERY, "rounds": []}
    floor = [torch.empty_like(part.tensor.reshape(-1)) for part in trained.parts("net", own=True)]
    with saving(trained, f"file://{folder}/runs", folder, world) as saver, sinks(folder) as servers:
        saver.save({})
        saver.finish(required=True)
        for number in range(rounds):
            turn: dict[str, Any] = {"copy": timed(lambda: copy(floor, trained))}
            step(trained, x)
            turn["blocking"] = timed(lambda: (saver.save({}), saver.settle()))
            saver.finish(required=True)
            turn["copyAgain"] = timed(lambda: copy(floor, trained))
            turn |= steps(trained, saver, x, lazily_first=bool(number % 2))
            turn |= others(trained, folder)
            turn |= uploads(trained, folder, world, servers)
            found["rounds"].append(turn)
            print(json.dumps(turn), file=sys.stderr, flush=True)
    found["adapters"] = adapters(folder, world)
    return found


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def copy(floor: list[torch.Tensor], trained: Trained) -> None:
    for into, part in zip(floor, trained.parts("net", own=True), strict=True):
        into.copy_(part.tensor.reshape(-1))


def steps(trained: Trained, saver: Saver, x: torch.Tensor, *, lazily_first: bool) -> dict[str, float]:
    """Seconds of EVERY steps without a save, and with one that is taken as the loop takes it; and what the save itself held up."""
    held = 0.0

    def plain() -> None:
        for _ in range(EVERY):
            step(trained, x)

    def lazily() -> None:
        nonlocal held
        for number in range(EVERY):
            if number == 0:
                began = time.perf_counter()
                saver.save({})
                held += time.perf_counter() - began

            def settle() -> None:
                nonlocal held
                began = time.perf_counter()
                saver.settle()
                held += time.perf_counter() - began

            step(trained, x, settle)

    found = {}
    for name, act in [("lazy", lazily), ("plain", plain)] if lazily_first else [("plain", plain), ("lazy", lazily)]:
        found[name] = timed(act)
    saver.finish(required=True)
    return {**found, "held": held}


def others(trained: Trained, folder: Path) -> dict[str, float]:
    """The same model and optimizer, by other means, on the same disk."""
    import pyarrow.fs
    import torch.distributed.checkpoint as dcp
    from ray.train._internal.storage import _upload_to_fs_path

    net = trained.engines["net"]
    found = {"deepspeed": timed(lambda: net._engine.save_checkpoint(str(folder / "deepspeed"), tag="tag"))}
    found["ray"] = timed(lambda: _upload_to_fs_path(str(folder / "deepspeed"), pyarrow.fs.LocalFileSystem(), str(folder / "ray")))
    state = {"module": net.module.state_dict(), "optimizer": net._engine.basic_optimizer.state_dict()}
    began = time.perf_counter()
    future: Any = dcp.async_save(state, checkpoint_id=str(folder / "dcp"))
    found["dcp"] = time.perf_counter() - began
    future.result()
    found["dcpDone"] = time.perf_counter() - began
    return found


@contextmanager
def sinks(folder: Path) -> Iterator[Mapping[str, str]]:
    """Where uploads go, by name: a folder, and an S3 server of this machine."""
    (folder / "versitygw").mkdir()
    with service("versitygw", folder / "versitygw") as server:
        os.environ |= server.environ()
        yield {"file": f"file://{folder}/uploads", "s3": server.fresh()}


def uploads(trained: Trained, folder: Path, world: World, servers: Mapping[str, str]) -> dict[str, Any]:
    """Seconds of the raw sink, of our upload, and of the uploader's processor, by sink."""
    found: dict[str, Any] = {}
    data = bytes(bytearray(os.urandom(1 << 20)) * (-(-sum(part.slice.bytes for part in trained.parts("net", own=True)) >> 20)))
    for name, uri in servers.items():
        raw = timed(lambda uri=uri: plain_file(folder / "plain", data) if uri.startswith("file") else plain_s3(uri, data))  # type: ignore[misc]
        # Both are kept: what is timed is an upload and its commit, not that the one before is deleted, minutes before in a run.
        with saving(trained, f"{uri}/{trained.state.step}", folder, world, last=2) as saver:
            saver.save({})
            saver.finish(required=True)  # started, and its memory used before
            step(trained, torch.ones(1, WIDTH))
            saver.save({})
            saver.settle()
            before = processor(saver._uploader._pid())
            began = time.perf_counter()
            saver._snapshot.wait()
            saver.finish(required=True)
            found[name] = {
                "raw": raw,
                "upload": time.perf_counter() - began,
                "processor": processor(saver._uploader._pid()) - before,
                "bytes": len(data),
            }
    return found


def plain_file(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with path.open("xb", buffering=0) as file:
        for start in range(0, len(data), PART):
            file.write(memoryview(data)[start : start + PART])
        os.fsync(file.fileno())


def plain_s3(uri: str, data: bytes) -> None:
    """One object in as many parts at a time as ours, nothing hashed or checked."""
    import boto3
    from botocore.config import Config

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    settings = Config(request_checksum_calculation="when_required", s3={"payload_signing_enabled": False}, max_pool_connections=8)
    client, key = boto3.client("s3", config=settings), f"{prefix}/plain"
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]

    def part(number: int) -> dict[str, Any]:
        body = data[number * PART : (number + 1) * PART]
        sent = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number + 1, Body=body)
        return {"PartNumber": number + 1, "ETag": sent["ETag"]}

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(part, range(-(-len(data) // PART))))
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def processor(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def adapters(folder: Path, world: World) -> dict[str, int]:
    """Bytes of a checkpoint of adapters on a frozen base: ours, and what DeepSpeed saves of it by default."""
    torch.manual_seed(0)
    trained = Trained({"net": engine(Network(frozen=True), world)}, State(), None)
    step(trained, torch.randn(4, WIDTH))
    trained.engines["net"]._engine.save_checkpoint(str(folder / "naive"), tag="tag")
    naive = sum(path.stat().st_size for path in (folder / "naive").rglob("*.pt"))
    with saving(trained, f"file://{folder}/adapters", folder, world) as saver:
        saver.save({})
        saver.finish(required=True)
        assert saver.commit is not None
        return {"ours": saver.commit.size_bytes, "naive": naive}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        found = measure(int(sys.argv[1]), Path(name))
    print(json.dumps([found]), flush=True)
    leave(0)


if __name__ == "__main__":
    main()
