"""The small readers of a run folder: numbers, phases, samples, the timeline, TensorBoard."""

from __future__ import annotations

import fcntl
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainjobs.report.gallery import LARGEST, samples, spread
from trainjobs.report.timeline import strip, told
from trainjobs.run.events import Events
from trainjobs.run.folder import INTERRUPTED, Run
from trainjobs.run.numbers import duration, instant, number, short, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (50000, "50000"), (0.0413, "0.0413"), (1.3208, "1.321"), (812.4, "812.4"), (0.000123, "1.23e-4"), (1e-4, "1e-4"),
        (1.5e7, "1.5e7"), (-0.5, "-0.5"), (float("nan"), "nan"), ("nan", "nan"), ("-inf", "-inf"), (None, "-"), (True, "-"), ("x", "-"),
    ],
)  # fmt: skip
def test_short(value: object, text: str) -> None:
    assert short(value) == text


def test_durations_sizes_and_moments() -> None:
    assert [duration(seconds) for seconds in (-1, 0.4, 45, 200, 3600, 4320, 183600)] == ["0s", "0s", "45s", "3m20s", "1h", "1h12m", "2d3h"]
    assert [size(count) for count in (512, 2048, 612 * 2**20, 33.5e9, 5 * 2**40)] == ["512 B", "2 KiB", "612 MiB", "31.2 GiB", "5 TiB"]
    assert instant("2026-08-30T12:00:05Z") == instant("2026-08-30T14:00:05+02:00") == instant("2026-08-30T12:00:05") == 1788091205.0
    assert [instant(value) for value in (None, True, "soon", float("inf"))] == [None] * 4
    assert number(True) is None


def test_a_run_that_nobody_trains_is_interrupted(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.phase() == INTERRUPTED
    (tmp_path / "progress.json").write_text('{"phase": "Running"}')
    assert run.phase() == INTERRUPTED
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run.phase() == "Running"
    assert run.phase() == INTERRUPTED
    (tmp_path / "progress.json").write_text('{"phase": "Succeeded"}')
    assert run.phase() == "Succeeded"


def test_a_torn_row_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 2, "loss": 1}\n{"step": 1}\n{"loss": 3}\n\xff\xfe\n{"step": 3, "lo')
    assert [row["step"] for row in Run(tmp_path).metrics()] == [1, 2]


def test_checkpoints_are_where_the_trainer_puts_them(tmp_path: Path) -> None:
    from trainjobs.api.job import Job
    from trainjobs.checkpointer.identity import store_uri

    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}}
    for checkpoints in ({}, {"uri": "file:///runs/faces/"}):
        for metadata in ({"name": "a"}, {"name": "a", "uid": "u-1"}):
            manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": metadata}
            job = Job.model_validate({**manifest, "spec": {**spec, "checkpoints": checkpoints}})
            (tmp_path / "job.json").write_text(job.model_dump_json(by_alias=True, exclude_none=True))
            assert Run(tmp_path).checkpoints_uri() == store_uri(job, tmp_path)


def test_samples_are_spread_over_the_run_with_first_and_last(tmp_path: Path) -> None:
    assert spread(5, 10) == [0, 1, 2, 3, 4]
    assert spread(100, 3) == [0, 50, 99]
    assert spread(100, 1) == [99]
    for step in range(0, 1000, 10):
        (tmp_path / f"step-{step:06d}.txt").write_text("x" * 1000)
    (tmp_path / "notes.md").write_text("")
    assert [sample.step for sample in samples(tmp_path, frames=4)] == [0, 330, 660, 990]
    (tmp_path / "step-000005.png").write_bytes(b"not a picture")
    assert 5 not in [sample.step for sample in samples(tmp_path, frames=200)]
    few = samples(tmp_path, budget=10_000)
    assert sum(len(sample.text) for sample in few) <= 10_000
    assert (few[0].step, few[-1].step) == (0, 990)


def test_a_huge_picture_is_shrunk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    (tmp_path / "step-000001.png").write_bytes(buffer.getvalue())
    assert len(buffer.getvalue()) > LARGEST
    (sample,) = samples(tmp_path)
    assert len(sample.picture) < LARGEST * 4 / 3 + 100
    assert sample.width == 200


def test_the_timeline_shows_attempts_and_sums_up_routine() -> None:
    events = [
        {"time": 0.0, "event": "started", "attempt": 1, "step": 0},
        *({"time": float(step), "event": "checkpoint", "step": step} for step in (10, 20, 30)),
        {"time": 50.0, "event": "worker-lost", "attempt": 1, "step": 33},
        {"time": 60.0, "event": "resumed", "attempt": 2, "step": 30},
        {"time": 100.0, "event": "succeeded", "attempt": 2, "step": 80},
    ]
    shown = strip(events)
    assert shown is not None
    assert [(bar["left"], bar["width"], bar["tone"]) for bar in shown["bars"]] == [(0.0, 50.0, "warn"), (60.0, 40.0, "good")]
    assert [mark["at"] for mark in shown["marks"]] == [10.0, 20.0, 30.0]
    rows = told(events)
    assert [row["kind"] for row in rows] == ["started", "routine", "worker-lost", "resumed", "succeeded"]
    assert (rows[1]["message"], rows[1]["step"], rows[2]["after"]) == ("3 checkpoints", "10–30", "+50s")
    assert strip(events[:1]) is None


def test_events_are_what_tensorboard_reads(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    events = Events(tmp_path / "events")
    events.scalars(7, {"loss/D": 0.25, "lr/generator": 1e-4})
    events.image(7, "samples", np.zeros((4, 6, 3), dtype=np.uint8))
    events.text(7, "samples", "<b>text</b>")
    events.close()
    (file,) = (tmp_path / "events").iterdir()
    found = {}
    data = file.read_bytes()
    # A record is: length (8 bytes), its checksum (4), the message, its checksum (4).
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        found |= {value.tag: (event.step, value) for value in event.summary.value}
    assert found["loss/D"][0] == 7
    assert found["loss/D"][1].simple_value == 0.25
    assert (found["samples"][1].image.height, found["samples"][1].image.width) == (4, 6)
    assert any("text" in tag for tag in found)


def test_reading_needs_no_heavy_module() -> None:
    import subprocess
    import sys

    code = "import sys, trainjobs.report.page, trainjobs.run.folder; print(json.dumps(sorted(sys.modules)))"
    names = subprocess.run([sys.executable, "-c", "import json; " + code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "jinja2", "tensorboardX", "PIL", "ray"} & set(json.loads(names))
