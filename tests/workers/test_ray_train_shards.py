"""gtj prepare on a real Ray cluster of two machines: the same shards as of one process, also when it is killed amid them, in every store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.stores.conftest import start as start
from tests.stores.servers import Start
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.cli.main import status
from trainjobs.data.dataset import Reading
from trainjobs.data.prepare import elsewhere, prepare
from trainjobs.stores.file import FileStore

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e_local"))

import nodes

JOB = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {{name: words}}
spec:
  language: {{network: {{contextLength: 16}}, tokenizer: {{type: bpe, vocabularySize: 300}}}}
  data: {{source: "{source}"}}
  training: {{steps: 3}}
"""
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
    nodes.until(
        lambda: len([*out.glob("*.parquet")]) >= 2 and all(any(one.glob("gentrain-prepare-*")) for one in kept), process, log
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = json.loads((out / "prepared.json").read_bytes())
    assert 0 < len(there["shards"]) < there["of"]
    before = {name: (out / name).stat().st_mtime_ns for name in there["shards"]}
    assert begun(cluster, job, f"file://{out}", log).wait(120) == 0, log.read_text()
    assert f"{len(before)} were there" in log.read_text()
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before, "what was there was not made again"
    assert digests((out / "prepared.json").read_bytes()) == whole
    assert not [found for one in kept for found in one.glob("gentrain-prepare-*")], "nothing is left on the machines"

    started = {}
    for name, server in servers.items():
        source, target = server.fresh(), server.fresh()
        for file, data in raw().items():
            server.write(source, file, data)
        log = tmp_path / f"{name}.log"
        started[name] = (begun(cluster, manifest(tmp_path / name, source), target, log), target, log)
    for name, (process, target, log) in started.items():
        assert process.wait(120) == 0, log.read_text()
        assert digests(servers[name].read(target, "prepared.json")) == whole

    (tmp_path / "raw" / "part-03.jsonl").write_text('{"text": "good"}\n{oops\n')
    (tmp_path / "job" / "job.yaml").write_text((tmp_path / "job" / "job.yaml").read_text().replace("bpe, vocabularySize: 300", "byte"))
    assert begun(cluster, job, f"file://{tmp_path}/none", log).wait(120) == 7, log.read_text()
    assert "GTJ0113" in log.read_text()


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


@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    job = manifest(tmp_path / "job", written(tmp_path / "raw"))
    command = [sys.executable, "-m", "trainjobs.cli.main", "prepare", "-f", str(job), "--out", f"file://{tmp_path}/out", "--ray"]
    done = subprocess.run(command, env=os.environ | {"RAY_TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 7, done.stderr
    assert "GTJ0302 no Ray cluster can be reached" in done.stderr
    assert not (tmp_path / "out").exists()
