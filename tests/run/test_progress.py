"""What a run tells about itself: rows of a future that did not happen are dropped, torn lines too, readers never see a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainjobs.run import progress


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def metrics(run: Path, step: int) -> progress.Metrics:
    return progress.Metrics(run, step, now=lambda: 7.0)


def write(run: Path, *lines: str) -> None:
    (run / "metrics.jsonl").write_text("".join(lines))


def test_rows_are_written_at_once(tmp_path: Path) -> None:
    ours = metrics(tmp_path, 0)
    ours.write(3, {"loss": 0.5, "samples": 12})
    assert rows(tmp_path) == [{"step": 3, "time": 7.0, "loss": 0.5, "samples": 12}]
    ours.close()


@pytest.mark.parametrize(
    ("before", "step", "kept"),
    [
        (['{"step": 1}\n', '{"step": 2}\n', '{"step": 3}\n'], 2, [1, 2]),
        (['{"step": 1}\n', '{"step": 2}\n', '{"step": 3}\n'], 0, []),
        (['{"step": 1}\n', '{"step": 2}\n', '{"step": 3}\n'], 9, [1, 2, 3]),
        (['{"step": 1}\n', '{"step": 2, "lo'], 2, [1]),
        (['{"step": 1}\n', '{"step": 2}'], 2, [1, 2]),
        (['{"step": 1}\n', "\n", "null\n", '{"loss": 1}\n', '{"step": null}\n', "\0\0\0\0\n"], 2, [1]),
        ([], 5, []),
    ],
    ids=["beyond", "all", "none", "torn", "without newline", "rubbish", "empty"],
)
def test_rows_beyond_the_resumed_step_are_dropped(before: list[str], step: int, kept: list[int], tmp_path: Path) -> None:
    write(tmp_path, *before)
    ours = metrics(tmp_path, step)
    ours.write(step + 1, {})
    ours.close()
    assert [row["step"] for row in rows(tmp_path)] == [*kept, step + 1]


def test_rows_of_other_fields_keep_their_bytes(tmp_path: Path) -> None:
    line = '{"step": 1, "loss":   0.10000000000000001, "text": "é"}\n'
    write(tmp_path, line)
    metrics(tmp_path, 1).close()
    assert (tmp_path / "metrics.jsonl").read_text() == line


@pytest.mark.parametrize(("value", "written"), [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf"), (1.5, 1.5)])
def test_json_without_nan(value: float, written: object, tmp_path: Path) -> None:
    ours = metrics(tmp_path, 0)
    ours.write(1, {"loss": value})
    ours.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["loss"] == written


def test_update_changes_what_it_names(tmp_path: Path) -> None:
    progress.update(tmp_path, now=lambda: 1.0, step=3, phase="Running")
    progress.update(tmp_path, now=lambda: 2.0, step=4)
    found = progress.read(tmp_path / "progress.json")
    assert (found["step"], found["phase"], found["updatedAt"]) == (4, "Running", 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"'])
def test_what_is_no_object_reads_as_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    assert progress.read(path) == {}
    path.write_text(text)
    assert progress.read(path) == {}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    progress.replace(path, "old")

    def full(self: Path, text: str, encoding: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        progress.replace(path, "new")
    assert path.read_text() == "old"


def test_the_timeline_grows(tmp_path: Path) -> None:
    progress.mark(tmp_path, "started", now=lambda: 1.0, step=0)
    progress.mark(tmp_path, "failed", now=lambda: 2.0, step=5, message="x")
    lines = [json.loads(line) for line in (tmp_path / "attempts.jsonl").read_text().splitlines()]
    assert lines == [{"time": 1.0, "event": "started", "step": 0}, {"time": 2.0, "event": "failed", "step": 5, "message": "x"}]


def test_rate_leaves_out_time_spent_elsewhere() -> None:
    clock = [0.0]
    rate = progress.Rate(now=lambda: clock[0])
    clock[0] = 100.0
    rate.start(5)
    clock[0] = 110.0
    rate.away(5.0)
    assert rate.look(15) == 2.0  # 10 steps in 10 seconds, 5 of them elsewhere
    clock[0] = 115.0
    assert rate.look(20) == 1.0  # what was elsewhere is forgotten
    assert rate.look(20) == 0.0
    rate.away(60.0)
    assert rate.look(30) == 0.0  # never negative
