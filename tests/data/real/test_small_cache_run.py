"""A whole `gtj run` of two workers on data of twenty times its cache, from a bucket."""

from __future__ import annotations

import io
import json
import os
import socket
import socketserver
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.places.memory import on_disk
from tests.data.real.recorded import recording
from tests.data.real.sources import bucket
from tests.stores.servers import service as service_of

ROOT = Path(__file__).parents[3]
SHARDS, EACH, BATCH = 160, 12, 8
JOB = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {{name: small}}
spec:
  custom: {{objective: "tests.data.real.recorded:build"}}
  data: {{source: "{source}", cache: "{limit}", holdout: 0, images: {{size: 8}}}}
  training: {{steps: {steps}, batch: {{global: {batch}}}}}
  compute: {{workers: 2, gpusPerWorker: 0}}
  checkpoints: {{every: {{steps: 1000}}}}
  evaluation: {{samples: 1, everySteps: 1000}}
"""


def shards() -> dict[str, bytes]:
    """Pictures of 47 KB: of smaller ones the archives' headers, which the index is made of, would be a good part."""
    random, made = np.random.default_rng(0), dict[str, bytes]()
    for shard in range(SHARDS):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for number in range(EACH):
                picture = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (125, 125, 3), dtype=np.uint8)).save(picture, "PNG")
                member = tarfile.TarInfo(f"{number:05d}.png")
                member.size = picture.tell()
                tar.addfile(member, io.BytesIO(picture.getvalue()))
        made[f"train-{shard:05d}.tar"] = out.getvalue()
    return made


class Count:
    def __init__(self) -> None:
        self.bytes, self.lock = 0, threading.Lock()


@contextmanager
def counted(port: int) -> Iterator[tuple[int, Count]]:
    """The port of a way to a server, and how many bytes came from there."""
    count = Count()

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=pumped, args=(server, self.request, count), daemon=True)
                back.start()
                pumped(self.request, server, None)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Way) as way:
        way.daemon_threads = True
        threading.Thread(target=way.serve_forever, daemon=True).start()
        yield way.server_address[1], count
        way.shutdown()


def pumped(source: socket.socket, sink: socket.socket, count: Count | None) -> None:
    try:
        while data := source.recv(1 << 16):
            if count is not None:
                with count.lock:
                    count.bytes += len(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_an_epoch_of_two_workers_keeps_to_its_disk_and_none_fetches_the_data_twice(tmp_path: Path) -> None:
    files = shards()
    total, seen = sum(map(len, files.values())), tmp_path / "seen"
    limit = total // 20
    seen.mkdir()
    (tmp_path / "server").mkdir()
    with service_of("versitygw", tmp_path / "server") as server, counted(server.port) as (port, count):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environ().items():
                patch.setenv(name, value)
            source = bucket(server, files)
        steps = SHARDS * EACH // BATCH
        (tmp_path / "job.yaml").write_text(JOB.format(source=source, limit=limit, steps=steps, batch=BATCH))
        environ = {**os.environ, **server.environ(port), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GENTRAIN_RECORDED": str(seen)}
        command = [sys.executable, "-m", "trainjobs.cli.main", "run", "-f", "job.yaml", "--run-dir", "run"]
        most = 0
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=log)
            while process.poll() is None:
                with suppress(FileNotFoundError):  # not made yet
                    most = max(most, on_disk(tmp_path / "run" / "cache" / "fetched"))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
        assert process.returncode == 0, (tmp_path / "log").read_text()
    assert 0 < most <= limit
    # All bytes that came: those of the epoch, of the first look, the index, the sheet of the first 64 samples, HTTP's own, and the shards
    # with which the next epoch begins. Nothing is held out: a pass over held-out samples is a use of its own.
    assert total <= count.bytes <= 1.1 * total, f"{count.bytes / total:.3f} of the data was fetched"
    assert len(recording(seen)) == SHARDS * EACH
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == steps
