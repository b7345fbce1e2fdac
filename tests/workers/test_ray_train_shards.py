"""gtj prepare on a real Ray cluster of two machines: the same shards as of one process, also after a kill amid them, in every store."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ray.exceptions import WorkerCrashedError

from tests.data.test_prepare_command import JOB
from tests.stores.conftest import start as start
from tests.stores.servers import Start
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.cli.main import status
from trainjobs.data.dataset import Reading
from trainjobs.data.prepare import elsewhere, prepare
from trainjobs.data.prepare_shards import Task
from trainjobs.stores.file import FileStore
from trainjobs.workers.ray_train import shards

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e_local"))

import nodes

PARTS = 12
STORES = ("fake-gcs-server", "azurite")


def raw(rows: int = 150) -> dict[str, bytes]:
    return {
        f"part-{part:02d}.jsonl": "".join(json.dumps({"text": f"{part} {row} " * (3 + row % 200)}) + "\n" for row in range(rows)).encode()
        for part in range(PARTS)
    }


def manifest(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml").write_text(JOB.format(source=source))
    return folder / "job.yaml"


def written(folder: Path) -> str:
    folder.mkdir()
    for name, data in raw().items():
        (folder / name).write_bytes(data)
    return f"file://{folder}"


def digests(prepared: bytes) -> dict[str, str]:
    told = json.loads(prepared)
    assert len(told["shards"]) == told["of"] >= PARTS
    return {name: entry["sha256"] for name, entry in told["shards"].items()}


@pytest.fixture(scope="module")
def machines(start: Start) -> Iterator[tuple[nodes.Cluster, dict[str, Any]]]:
    """A cluster whose processes can reach the servers that there are."""
    servers, environ = {}, dict[str, str]()
    for name in STORES:
        try:
            servers[name] = start(name)
        except pytest.skip.Exception:
            continue
        environ |= servers[name].environ()
    with TemporaryDirectory(prefix="gtj-") as folder:  # a short name: Ray has sockets in it
        cluster = nodes.Cluster(Path(folder), "", **environ)
        try:
            cluster.start()
            yield cluster, servers
        finally:
            cluster.stop()


def begun(cluster: nodes.Cluster, job: Path, out: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainjobs.cli.main", "prepare", "-f", str(job), "--out", out, "--shard-size", "100k"]
    environ = {**cluster.environment(cluster.head), "RAY_ADDRESS": cluster.address}
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=job.parent, env=environ, stdout=file, stderr=file)


@pytest.mark.slow
def test_the_same_shards_as_of_one_process_after_a_kill_and_in_every_store(
    machines: tuple[nodes.Cluster, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, servers = machines
    for name in STORES:
        for variable, value in servers[name].environ().items() if name in servers else ():
            monkeypatch.setenv(variable, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = manifest(tmp_path / "job", written(tmp_path / "raw"))
    assert status(["prepare", "-f", str(job), "--out", f"file://{tmp_path}/whole", "--shard-size", "100k"]) == 0
    whole = digests((tmp_path / "whole" / "prepared.json").read_bytes())

    out, log = tmp_path / "out", tmp_path / "log"
    process = begun(cluster, job, f"file://{out}", log)
    kept = [cluster.head, cluster.head.parent / "worker"]
    nodes.until(lambda: len([*out.glob("*.parquet")]) >= 2 and all(any(one.glob("gentrain-prepare-*")) for one in kept), process, log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = json.loads((out / "prepared.json").read_bytes())
    assert 0 < len(there["shards"]) < there["of"]
    before = {name: (out / name).stat().st_mtime_ns for name in there["shards"]}

    started = {"folder": (begun(cluster, job, f"file://{out}", log), log)}
    targets = {name: server.fresh() for name, server in servers.items()}
    for name, server in servers.items():
        source, told = server.fresh(), tmp_path / f"{name}.log"
        for file, data in raw().items():
            server.write(source, file, data)
        started[name] = (begun(cluster, manifest(tmp_path / name, source), targets[name], told), told)
    for process, told in started.values():
        assert process.wait(120) == 0, told.read_text()
    assert f"{len(before)} were there" in log.read_text()
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before, "what was there was not made again"
    assert digests((out / "prepared.json").read_bytes()) == whole
    for name, target in targets.items():
        assert digests(servers[name].read(target, "prepared.json")) == whole
    assert not [found for one in kept for found in one.glob("gentrain-prepare-*")], "nothing is left on the machines"


def test_what_is_wrong_with_the_data_is_told_with_the_machine_that_saw_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, begun = written(tmp_path / "raw"), list[Task]()
    spec = Spec.model_validate({"language": {}, "data": {"source": source}, "training": {"steps": 1}})
    prepare(spec, FileStore(tmp_path / "out"), Reading(tmp_path / "cache"), 100_000, lambda one, tasks: begun.extend(tasks) or ())
    monkeypatch.setattr(shards.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.setattr(shards.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    told = spec.model_dump_json(by_alias=True), f"file://{tmp_path}/out", 100_000
    entry, error, node = shards.made(*told, begun[0])
    assert (error, node) == (None, "10.0.0.7")
    assert entry is not None
    assert (tmp_path / "out" / begun[0].name).stat().st_size == entry["bytes"]
    (tmp_path / "raw" / "part-01.jsonl").write_bytes(b"")
    answer = shards.made(*told, begun[1])
    monkeypatch.setattr(shards.ray, "get", lambda reference: reference)
    with pytest.raises(JobError) as caught:
        shards.OnRay(*told)._entry(answer, begun[1])
    assert (caught.value.code, caught.value.exit_code) == ("GTJ0113", 7)
    assert "part-01.jsonl" in caught.value.where
    assert caught.value.why.endswith("seen from 10.0.0.7")


def test_a_process_that_is_lost_too_often_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(reference: object) -> None:
        raise WorkerCrashedError

    monkeypatch.setattr(shards.ray, "get", lost)
    with pytest.raises(JobError) as caught:
        shards.OnRay("{}", "file:///out", 1)._entry(None, Task("tokens-00000.parquet", range(1)))
    assert (caught.value.code, caught.value.exit_code) == ("GTJ0213", 5)
    assert "run the same command again" in caught.value.how


def test_a_place_that_is_not_seen_from_every_machine_is_told(tmp_path: Path) -> None:
    spec = Spec.model_validate({"language": {}, "data": {"source": written(tmp_path / "raw")}, "training": {"steps": 1}})
    with pytest.raises(JobError) as caught:
        elsewhere(spec, FileStore(tmp_path / "here"), Reading(tmp_path / "cache"), 100_000)
    assert (caught.value.code, caught.value.exit_code) == ("GTJ0114", 7)
    assert "not seen from every machine" in caught.value.what


def test_data_that_is_another_on_a_machine_is_told(tmp_path: Path) -> None:
    spec = Spec.model_validate({"language": {}, "data": {"source": written(tmp_path / "raw")}, "training": {"steps": 1}})
    store = FileStore(tmp_path / "out")
    prepare(spec, store, Reading(tmp_path / "cache"), 100_000, lambda one, tasks: ())
    assert elsewhere(spec, store, Reading(tmp_path / "cache"), 100_000).store is store
    (tmp_path / "raw" / "part-00.jsonl").write_text('{"text": "another"}\n')
    with pytest.raises(JobError, match="GTJ0108 other data was prepared there"):
        elsewhere(spec, store, Reading(tmp_path / "cache"), 100_000)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_cannot_be_reached_is_told(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{bound.getsockname()[1]}")
        job = manifest(tmp_path / "job", written(tmp_path / "raw"))
        assert status(["prepare", "-f", str(job), "--out", f"file://{tmp_path}/out"]) == 7
    told = capsys.readouterr().err
    assert "GTJ0302 no Ray cluster can be reached" in told
    assert "Connection refused" in told
    assert not (tmp_path / "out").exists()


def test_no_cluster_on_this_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def none(**options: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(shards.ray, "init", none)
    job = manifest(tmp_path / "job", written(tmp_path / "raw"))
    assert status(["prepare", "-f", str(job), "--out", f"file://{tmp_path}/out", "--ray"]) == 7
    assert "--no-ray prepares on this machine" in capsys.readouterr().err
