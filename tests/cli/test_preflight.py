"""The command of the preflight pod, against a real store and real data: its verdict, as the operator reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.httpsession import URLLib3Session

from gentrain_operator import preflight as decided
from tests.stores.servers import Service, free_port, service
from trainjobs.cli import preflight


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service("moto", tmp_path_factory.mktemp("moto")) as running:
        yield running


class Pod:
    """Runs the command in this process; what the kubelet would show of it, as the operator reads it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch

    def __call__(self, **spec: Any) -> decided.Verdict:
        whole = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 2}, "compute": {"gpusPerWorker": 0}, **spec}
        metadata = {"name": "faces", "namespace": "team", "uid": "5f1c"}
        head = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": metadata}
        (self.folder / "job.json").write_text(json.dumps({**head, "spec": whole}))
        verdict = self.folder / "termination-log"
        self.monkeypatch.setattr(sys, "argv", ["preflight", str(self.folder / "job.json"), "--verdict", str(verdict)])
        code = preflight.main()
        assert len(verdict.read_bytes()) < 4096, "of more the kubelet keeps the beginning"
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": verdict.read_text()}
        state = {"containerStatuses": [{"name": "preflight", "state": {"terminated": ended}}]}
        found = decided.verdict({"metadata": {}, "spec": {}, "status": state})
        assert found is not None
        assert found.passed == (code == 0)
        return found


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    return Pod(tmp_path, monkeypatch)


def test_data_that_is_not_there_is_refused(pod: Pod, tmp_path: Path) -> None:
    found = pod(data={"source": f"file://{tmp_path}/none", "images": {"size": 8, "channels": 1}})
    assert not found.passed
    assert found.said.startswith("GTJ0113 ")
    assert f"{tmp_path}/none" in found.said


def test_workers_without_a_common_place_are_refused(pod: Pod) -> None:
    assert pod(compute={"gpusPerWorker": 0, "workers": 2}).said.startswith("GTJ0107 checkpoints of 2 workers need a place")


def test_a_volume_is_written_and_left_as_it_was(pod: Pod, tmp_path: Path) -> None:
    found = pod(checkpoints={"uri": f"file://{tmp_path}/runs"})
    assert found == decided.Verdict(True, f"1797 images, 32x32 colour; file://{tmp_path}/runs can be written")
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


def test_a_job_of_a_newer_operator_is_no_traceback(pod: Pod) -> None:
    assert pod(vae={"unheard": 1}).said.startswith("GTJ0105 this trainer does not read the job")


@pytest.mark.slow
def test_a_bucket_is_written_and_cleared_and_a_bad_one_told(pod: Pod, moto: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto.environ().items():
        monkeypatch.setenv(name, value)
    uri, sent = moto.fresh(), list[str]()
    send = URLLib3Session.send

    def counted(session: URLLib3Session, request: AWSPreparedRequest) -> Any:
        sent.append(f"{request.method} {request.url}")
        return send(session, request)

    monkeypatch.setattr(URLLib3Session, "send", counted)
    found = pod(checkpoints={"uri": uri})
    assert found.passed
    assert found.said.startswith(f"1797 images, 32x32 colour; {uri} can be written, read, listed and cleared as arn:aws:")
    assert moto.keys(uri) == []
    assert 0 < len(sent) <= 12, sent
    sent.clear()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert "the bucket is in us-east-1 and the pods are in eu-west-1" in pod(checkpoints={"uri": uri}).said
    missing = pod(checkpoints={"uri": "s3://nowhere/runs"})
    assert (missing.passed, missing.said[:8]) == (False, "GTJ0112 ")
    assert "there is no bucket nowhere" in missing.said
    assert 0 < len(sent) <= 12, sent  # of both
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(preflight, "PATIENCE", 0.5)
    assert pod(checkpoints={"uri": uri}).said.startswith("GTJ0211 checkpoints cannot be written")


@pytest.mark.slow
def test_the_command_imports_neither_torch_nor_ray() -> None:
    program = "import sys, trainjobs.cli.preflight; print(sorted({'torch', 'ray', 'kubernetes'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
