"""Easy samples first: which samples a step may see, by position alone; and pictures that begin small."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from trainjobs.api.errors import JobError
from trainjobs.api.job import API_VERSION, KIND, Spec
from trainjobs.api.parse import parse
from trainjobs.data import Source, open_source
from trainjobs.data.curriculum import eased
from trainjobs.data.sampler import order
from trainjobs.noise import Noise
from trainjobs.world import World

COUNT, BATCH, STEPS = 40, 8, 10
UNTIL = BATCH * STEPS
SOLO = World(0, 1, torch.device("cpu"))


def pictures(folder: Path, hard: list[Any] | None = None) -> Path:
    """Picture n is grey n, and 39 - n hard: the brightest is the easiest."""
    folder.mkdir()
    lines = []
    for number in range(COUNT):
        Image.new("L", (8, 8), number).save(folder / f"{number:03d}.png")
        lines.append({"file_name": f"{number:03d}.png", "hard": (hard or list(range(COUNT))[::-1])[number]})
    Image.new("L", (8, 8), 255).save(folder / "zz.png")
    lines.append({"file_name": "zz.png", "hard": "hard" if hard and isinstance(hard[0], str) else 1000})
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def whole(curriculum: dict[str, Any] | None, data: dict[str, Any], family: dict[str, Any] | None = None) -> Spec:
    training = {"steps": 20, "batch": {"global": BATCH}}
    asked = {"curriculum": curriculum} if curriculum else {}
    return Spec.model_validate({**(family or {"vae": {}}), "data": {"holdout": 0.0, **data, **asked}, "training": training})


def by_column(folder: Path, tmp_path: Path, **settings: Any) -> Source:
    curriculum = {"by": "column", "column": "hard", "steps": STEPS, "start": 0.25, **settings.pop("curriculum", {})}
    asked = whole(curriculum, {"source": f"file://{folder}", "images": {"size": 8, "channels": 1}, **settings})
    with ExitStack() as ends:
        return eased(open_source(asked, tmp_path / "cache"), asked, SOLO, ends)


def greys(source: Source, positions: torch.Tensor, seed: int = 0) -> list[int]:
    image = source.batch(positions, seed, Noise(0, positions))["image"]
    return [round((value + 1) * 127.5) for value in image[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize("reading", [{}, {"onBadSample": "skip"}], ids=["table", "streamed"])
def test_only_the_easiest_share_is_seen_and_it_grows(reading: dict[str, Any], tmp_path: Path) -> None:
    source = by_column(pictures(tmp_path / "data"), tmp_path, **reading)
    seen = greys(source, torch.arange(UNTIL))
    ranked = [*range(COUNT - 1, -1, -1), 255]
    for position, grey in enumerate(seen):
        share = 0.25 + 0.75 * position / UNTIL
        assert ranked.index(grey) < share * (COUNT + 1)
    assert ranked.index(max(seen[-16:], key=ranked.index)) > COUNT // 2  # the hard ones do come
    assert len(set(seen)) > COUNT // 3


def test_behind_it_the_order_is_that_without(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data")
    source, later = by_column(folder, tmp_path), torch.arange(UNTIL, UNTIL + 2 * COUNT)
    plain = open_source(whole(None, {"source": f"file://{folder}", "images": {"size": 8, "channels": 1}}), tmp_path / "cache")
    assert greys(source, later) == greys(plain, later)


def test_it_is_a_function_of_seed_and_position(tmp_path: Path) -> None:
    """However the batch is cut, and wherever a run goes on."""
    folder = pictures(tmp_path / "data")
    source, every = by_column(folder, tmp_path), torch.arange(2 * UNTIL)
    at_once = greys(source, every)
    again = by_column(folder, tmp_path)
    assert [grey for part in every.flip(0).split(3) for grey in greys(again, part)] == at_once[::-1]
    assert greys(source, every, seed=1) != at_once


def test_ties_and_one_sample_are_no_trouble(tmp_path: Path) -> None:
    source = by_column(pictures(tmp_path / "data", hard=[1] * COUNT), tmp_path, curriculum={"start": 1e-6})
    assert greys(source, torch.arange(1)) == [0]


@pytest.mark.parametrize(
    ("hard", "column", "words"),
    [
        ([None, *range(1, COUNT)], "hard", "row 0 holds None, which is no number"),
        (["easy"] * COUNT, "hard", "which is no number"),
        (None, "hrad", 'did you mean "hard"?'),
    ],
)
def test_a_column_without_numbers_is_refused(hard: list[Any] | None, column: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        by_column(pictures(tmp_path / "data", hard=hard), tmp_path, curriculum={"column": column})
    assert words in str(caught.value)


def test_short_records_come_first(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b" * (1 + number % 20)} for number in range(COUNT)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    family = {"language": {"network": {"layers": 1, "hidden": 8, "heads": 1, "contextLength": 32}, "packing": "none"}}
    asked = whole({"by": "length", "steps": STEPS, "start": 0.2}, {"source": f"file://{tmp_path}/rows.jsonl"}, family)
    with ExitStack() as ends:
        source = eased(open_source(asked, tmp_path / "cache"), asked, SOLO, ends)
    lengths = sorted(1 + number % 20 for number in range(COUNT))
    units = source.units(torch.arange(UNTIL), 0).tolist()  # type: ignore[attr-defined]
    least = min(units) - 1  # the end of a completion is learned, too, where there is one
    for position, count in enumerate(units):
        most = lengths[min(COUNT, int((0.2 + 0.8 * position / UNTIL) * COUNT) + 1) - 1]
        assert count - least <= most
    assert max(units) > 15
    found = source.batch(torch.arange(4), 0, Noise(0, torch.arange(4)))
    assert (found["labels"] >= 0).sum(1).tolist() == units[:4]


def test_pictures_are_small_at_first(tmp_path: Path) -> None:
    family = {"diffusion": {"network": {"multipliers": [1, 2]}}}
    data = {"source": "builtin:shapes", "images": {"size": 16}}
    asked = whole({"by": "resolution", "size": 8, "steps": 3}, data, family)
    opened = open_source(asked, tmp_path)
    with ExitStack() as ends:
        source = eased(opened, asked, SOLO, ends)
    first, then = torch.arange(2 * BATCH, 3 * BATCH), torch.arange(3 * BATCH, 4 * BATCH)
    small, large = source.batch(first, 0, Noise(0, first))["image"], source.batch(then, 0, Noise(0, then))["image"]
    assert torch.equal(small, F.avg_pool2d(opened.batch(first, 0, Noise(0, first))["image"], 2))
    assert torch.equal(large, opened.batch(then, 0, Noise(0, then))["image"])
    assert source.heldout_batch(torch.arange(0)).keys() == opened.heldout_batch(torch.arange(0)).keys()
    assert torch.equal(order(first, 0, source.info.length), order(first, 0, opened.info.length))


SHAPES, FILES = {"source": "builtin:shapes"}, {"source": "file:///data"}


@pytest.mark.parametrize(
    ("family", "data", "curriculum", "words"),
    [
        ({"vae": {}}, FILES, {"by": "column"}, "nobody says how hard"),
        ({"vae": {}}, SHAPES, {"by": "column", "column": "a"}, "a table that stands beside pictures"),
        ({"vae": {}}, SHAPES, {"by": "resolution"}, "only the unet"),
        ({"diffusion": {"network": {"architecture": "dit"}}}, SHAPES, {"by": "resolution"}, "only the unet"),
        ({"diffusion": {}}, SHAPES, {"by": "resolution", "size": 32}, "write 4 to 16"),
        ({"diffusion": {"network": {"multipliers": [1, 1, 1, 1]}}}, SHAPES, {"by": "resolution", "size": 8}, "write 16 to 16"),
        ({"diffusion": {"network": {"multipliers": [1, 1, 1, 1, 1]}}}, SHAPES, {"by": "resolution"}, "fewer multipliers"),
        ({"diffusion": {}}, SHAPES, {"by": "length"}, "language: {packing: none}"),
        ({"language": {}}, FILES, {"by": "length"}, "language: {packing: none}"),
        ({"language": {}}, FILES, {"by": "column", "column": "a"}, "use by: length"),
        ({"vae": {}}, {"sources": [FILES, FILES]}, {"by": "column", "column": "a"}, "each source of a mixture"),
        ({"diffusion": {}}, SHAPES, {"by": "resolution", "size": 16, "start": 0.5}, "start"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(family: Any, data: Any, curriculum: Any, words: str) -> None:
    spec = {**family, "data": {**data, "curriculum": {"steps": 5, **curriculum}}, "training": {"steps": 9}}
    _, problems = parse({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": spec})
    found = [f"{problem.what} {problem.why} {problem.how}" for problem in problems if problem.code == "GTJ0108"]
    assert any(words in text for text in found), problems
