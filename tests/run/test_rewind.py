"""A run folder that goes back to a step tells nothing of later ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainjobs.run import progress
from trainjobs.run.rewind import rewind


def write(run: Path, *rows: dict[str, Any]) -> None:
    (run / "attempts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def timeline(run: Path) -> list[tuple[str, int]]:
    return [(row["event"], row["step"]) for row in map(json.loads, (run / "attempts.jsonl").read_text().splitlines())]


def test_samples_behind_the_step_go(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    names = [
        "step-000005.png",
        "step-000010.png",
        "step-000011.png",
        "step-000015.txt",
        "step-1000000.png.partial",
        "mine.png",
        "step-x.png",
    ]
    for name in names:
        (tmp_path / "samples" / name).touch()
    rewind(tmp_path, 10)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "mine.png",
        "step-000005.png",
        "step-000010.png",
        "step-x.png",
    ]


def test_the_timeline_keeps_what_happened_and_not_what_there_is_no_more(tmp_path: Path) -> None:
    happened = [("started", 0), ("evaluated", 5), ("checkpoint", 10), ("warning", 14), ("worker-lost", 16)]
    undone = [("evaluated", 15), ("checkpoint", 15)]
    write(tmp_path, *({"event": event, "step": step} for event, step in (*happened, *undone)))
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write("torn")
    rewind(tmp_path, 10)
    text = (tmp_path / "attempts.jsonl").read_text()
    assert text.endswith("torn")
    (tmp_path / "attempts.jsonl").write_text(text.removesuffix("torn"))
    assert timeline(tmp_path) == happened


@pytest.mark.parametrize("step", [0, 7])
def test_a_copy_of_the_folder_hears_of_it(step: int, tmp_path: Path) -> None:
    rewind(tmp_path, step, lambda: 3.0)
    assert progress.read(tmp_path / "progress.json")["wentBack"] == {"step": step, "time": 3.0}


def test_nothing_to_take_out_leaves_the_timeline_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, {"event": "evaluated", "step": 5})
    before = (tmp_path / "attempts.jsonl").stat().st_ino
    rewind(tmp_path, 5)
    assert (tmp_path / "attempts.jsonl").stat().st_ino == before
