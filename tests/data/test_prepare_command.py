"""gtj prepare, as people call it: what it prints, a kill in the middle, and a bucket."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.stores.servers import Service
from tests.stores.servers import service as service_of
from trainjobs.cli.main import gtj, status

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "data.md"
JOB = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {{name: words}}
spec:
  language: {{network: {{contextLength: 16}}, tokenizer: {{type: bpe, vocabularySize: 300}}}}
  data: {{source: "{source}"}}
  training: {{steps: 3}}
"""


def job(folder: Path, documents: int = 300) -> Path:
    (folder / "raw").mkdir()
    for part in range(12):
        rows = [json.dumps({"text": f"{part} {row} " * (3 + row % 200)}) for row in range(documents)]
        (folder / "raw" / f"part-{part:02d}.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "job.yaml").write_text(JOB.format(source=f"file://{folder / 'raw'}"))
    return folder / "job.yaml"


def test_it_says_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["prepare", "-f", str(job(tmp_path, 20)), "--out", f"file://{tmp_path}/out", "--shard-size", "2k"]
    done = CliRunner().invoke(gtj, arguments, catch_exceptions=False)
    assert done.output.startswith("prepared 12 shards, 240 rows, ")
    assert "tokens/s" in done.output
    assert f"train on it: data.source: file://{tmp_path}/out" in done.output
    again = CliRunner().invoke(gtj, arguments, catch_exceptions=False)
    assert again.output.startswith("prepared 0 shards")
    assert "12 were there" in again.output
    (tmp_path / "job.yaml").write_text(JOB.format(source=f"file://{tmp_path}/out"))
    shown = CliRunner().invoke(gtj, ["data", "-f", "job.yaml"], catch_exceptions=False)
    assert "prepared, 12 shards, " in shown.output
    assert "text 1, " in shown.output


def test_a_size_that_is_none_is_a_mistake_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["prepare", "-f", "job.yaml", "--out", f"file://{tmp_path}", "--shard-size", "many"]) == 2
    assert "--shard-size many is no size" in capsys.readouterr().err


def documented(out: str) -> list[str]:
    """The words of the page's command, with another place."""
    (command,) = re.findall(r"^```sh\ngtj (prepare .*)\n```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    words = shlex.split(command)
    assert words[-2:] == ["--out", "s3://bucket/prepared"]
    return [*words[:-1], out]


def begun(folder: Path, out: str, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainjobs.cli.main", *documented(out), "--shard-size", "100k"]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **(environ or {})}, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    job(tmp_path)
    assert begun(tmp_path, f"file://{tmp_path}/whole").wait(120) == 0
    process = begun(tmp_path, f"file://{tmp_path}/out")
    deadline = time.monotonic() + 120
    while len([*tmp_path.glob("out/*.parquet")]) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert len(there["shards"]) < there["of"]
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in there["shards"]}
    assert begun(tmp_path, f"file://{tmp_path}/out").wait(120) == 0
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if not path.name.startswith(".tmp-")}
    assert found == whole


@pytest.mark.slow
def test_into_a_bucket_and_trained_from_there(tmp_path: Path) -> None:
    job(tmp_path, 60)
    (tmp_path / "moto").mkdir()
    with service_of("moto", tmp_path / "moto") as server:
        run_from(tmp_path, server)


def run_from(folder: Path, server: Service) -> None:
    out = server.fresh()
    assert begun(folder, out, server.environ()).wait(120) == 0
    assert losses(folder, "raw-run", f"file://{folder / 'raw'}", {}) == losses(folder, "prepared-run", out, server.environ())


def losses(folder: Path, name: str, source: str, environ: dict[str, str]) -> list[object]:
    """Of a run on that source."""
    (folder / "job.yaml").write_text(JOB.format(source=source))
    command = [sys.executable, "-m", "trainjobs.cli.main", "run", "-f", "job.yaml", "--no-ray", "--run-dir", name]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    found = [value for row in rows for key, value in sorted(row.items()) if "loss" in key]
    assert found
    return found
