"""Samples as files: each one, all of them together, and how each was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.evaluate.pictures import grid, save_samples
from trainjobs.evaluate.rows import save_sheet
from trainjobs.sampling.draw import Drawn
from trainjobs.sampling.opened import Opened

TOLD = "samples.json"
FROM = ("family", "step", "samples", "checkpoint", "digest", "weights")


def write(drawn: Drawn, found: Opened, folder: Path, source: str, device: str) -> Path:
    """0000.png ... and grid.png of pictures, 0000.txt ... and samples.txt of texts, points.json and points.png of points; samples.json of
    all. The folder may be there; files of these names are replaced. Returns the one to look at. JobError GTJ0114."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        told = [dict(one) for one in drawn.told]
        shown = _written(drawn, found, folder, told)
        about = {"source": source, **{name: found.facts[name] for name in FROM if name in found.facts}, "device": device}
        _text(folder / TOLD, {**about, "versions": found.facts.get("versions", {}), "drawn": told})
    except OSError as error:
        why, how = error.strerror or str(error), "name a folder that can be written with --out"
        raise JobError("GTJ0114", "the samples cannot be written", where=str(folder), why=why, how=how) from error
    return shown


def _written(drawn: Drawn, found: Opened, folder: Path, told: list[dict[str, Any]]) -> Path:
    samples = drawn.samples
    if samples.images is not None:
        for number, one in enumerate(told):
            one["file"] = f"{number:04d}.png"
            width, height = samples.images.shape[-1], samples.images.shape[-2]
            picture = grid(samples.images[number : number + 1], columns=1)
            cell = picture.crop((2, 2, picture.width - 2, picture.height - 2)).resize((width, height), 0)
            cell.save(folder / one["file"])
        return save_sheet(samples, folder / "grid", rows=drawn.rows, steps=drawn.steps)
    if samples.points is not None:
        _text(folder / "points.json", samples.points.tolist())
        return save_samples(samples, folder / "points", modes=found.info.modes)
    for number, (one, text) in enumerate(zip(told, samples.texts or (), strict=True)):
        one["file"] = f"{number:04d}.txt"
        (folder / one["file"]).write_text(text, encoding="utf-8")
    return save_samples(samples, folder / "samples")


def _text(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
