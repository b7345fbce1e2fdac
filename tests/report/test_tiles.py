"""The headline numbers: what was trained on what, as far as a run has told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainjobs.report.tiles import Tile, many, tiles
from trainjobs.run.folder import Run

SPEC = {"gan": {}, "training": {"batch": {"global": 64}, "seed": 7, "precision": "bf16"}}
PROGRESS = {
    "step": 100, "totalSteps": 200, "samples": 6400, "trainingSamples": 1700, "heldoutSamples": 97, "workers": 2, "device": "cuda",
    "stage": 1, "parameters": {"generator": 99009, "discriminator": 2_340_100}, "throughput": {"value": 1264.0, "unit": "samples/s"},
    "memoryBytes": 2**30,
}  # fmt: skip


def told(run: Path, spec: Any, progress: Any) -> dict[str, Tile]:
    (run / "job.json").write_text(json.dumps({"spec": spec}))
    (run / "progress.json").write_text(json.dumps(progress))
    events = [{"event": "started", "time": 0.0}, {"event": "resumed", "time": 90000.0}, {"event": "succeeded", "time": 90020.0}]
    return {tile.label: tile for tile in tiles(Run(run), [{"step": 1, "loss/D": 2.0}, {"step": 9, "loss/D": 0.5}], events)}


def test_the_first_screen_says_what_was_trained_on_what(tmp_path: Path) -> None:
    found = told(tmp_path, SPEC, PROGRESS)
    assert found["training samples"][1:] == ("1,700", "and 97 held out")
    assert found["samples seen"][1:] == ("6,400", "each 3.8 times")
    assert found["parameters"][1:] == ("2.44 M", "generator 99,009, discriminator 2.34 M")
    assert found["seed"][1:] == ("7", "bf16")
    assert found["device"][1:] == ("cuda", "2 workers, ZeRO stage 1")
    assert found["batch"][1:] == ("64", "32 a worker")
    assert found["training time"][1:] == ("20s", "2 attempts")
    assert found["loss/D"][1:] == ("0.5", "from 2")


def test_what_was_not_told_is_left_out_and_nothing_is_empty(tmp_path: Path) -> None:
    for progress in (
        {},
        {"step": None, "parameters": {}, "workers": None},
        {"parameters": "many", "trainingSamples": "x", "throughput": 3},
    ):
        found = told(tmp_path, {}, progress)
        assert {"training samples", "parameters", "batch", "seed", "device"}.isdisjoint(found)
        assert all(tile.value and tile.value != "-" for tile in found.values())
    micro = {"training": {"batch": {"global": 64, "micro": 8}}}
    assert told(tmp_path, micro, {"trainingSamples": 10, "samples": 5})["batch"].remark == "8 at a time"
    assert told(tmp_path, micro, {"trainingSamples": 10, "samples": 5})["samples seen"].remark == "50% of them"
    assert told(tmp_path, micro, {"trainingSamples": 10})["training samples"].remark == "none held out"


@pytest.mark.parametrize(
    ("count", "text"), [(980, "980"), (84210, "84,210"), (1_234_567, "1.23 M"), (6.9e9, "6.9 B"), (25_000_000, "25 M")]
)
def test_parameters_as_people_say_them(count: float, text: str) -> None:
    assert many(count) == text
