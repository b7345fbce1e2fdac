"""Sheets by rows: where each picture and name stands, which noise it has, and what leads from one sample to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.pictures import GAP
from trainjobs.evaluate.rows import WIDEST, by_row, names_of, numbers, on_the_way, save_sheet
from trainjobs.noise import Between, Noise
from trainjobs.objectives.phase import Samples

TEXT = {"conditioning": {"type": "text", "length": 24, "width": 16, "layers": 1, "heads": 2}}
INFO = DataInfo("image", (1, 8, 8), 8, 0, classes=("zero", "one", "two"))


def flat(count: int) -> Tensor:
    """Image n is of one grey, n."""
    return (torch.arange(count, dtype=torch.float32) / 127.5 - 1).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)


def greys(sheet: Image.Image) -> list[list[int]]:
    """Of each line the greys of its pictures, from the middle of each."""
    lines = (sheet.height - GAP) // (32 + GAP)
    right = [sheet.width - GAP - 16 - column * (32 + GAP) for column in reversed(range((sheet.width - GAP) // (32 + GAP)))]
    rows = []
    for line in range(lines):
        pixels: list[Any] = [sheet.getpixel((x, GAP + 16 + line * (32 + GAP))) for x in right]
        rows.append([pixel[0] for pixel in pixels if pixel[0] < 40])
    return rows


def test_each_name_has_its_pictures_in_its_row() -> None:
    sheet = by_row(flat(8), ["cat", "dog", "owl"])
    assert greys(sheet) == [[0, 3, 6], [1, 4, 7], [2, 5]]
    left = sheet.crop((0, 0, sheet.width - 3 * (32 + GAP) - GAP, sheet.height))
    ink = [left.crop((0, GAP + row * 34, left.width, GAP + row * 34 + 32)).getextrema() for row in range(3)]
    assert all(low < 128 for ((low, _), *_) in ink), "a name stands before each row"


def test_a_long_row_goes_on_below_and_what_was_not_drawn_has_none() -> None:
    assert [len(row) for row in greys(by_row(flat(WIDEST + 3), ["x"]))] == [WIDEST, 3]
    assert greys(by_row(flat(2), ["a", "b", "c", "d"])) == [[0], [1]]


def test_a_line_leads_from_a_sample_to_the_next() -> None:
    assert greys(on_the_way(flat(7), 3)) == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert greys(on_the_way(flat(1), 3)) == [[0]]


@pytest.mark.parametrize(
    ("family", "prompts", "wanted"),
    [
        ({"diffusion": TEXT}, ["a red circle"], ("a red circle",)),
        ({"diffusion": TEXT}, [], ()),
        ({"diffusion": {"conditioning": {"type": "class"}}}, [], INFO.classes),
        ({"diffusion": {"conditioning": {"type": "class"}}}, ["two"], ("two",)),
        ({"gan": {"conditional": True}}, [], INFO.classes),
        ({"gan": {}}, [], ()),
    ],
)
def test_rows_are_prompts_or_classes(family: dict[str, Any], prompts: list[str], wanted: tuple[str, ...]) -> None:
    data = {"source": "builtin:digits"}
    spec = Spec.model_validate({**family, "data": data, "training": {"steps": 1}, "evaluation": {"prompts": prompts}})
    assert names_of(spec, INFO) == wanted
    assert numbers(torch.arange(5), wanted).tolist() == [n // max(1, len(wanted)) for n in range(5)]


def test_points_and_texts_are_written_as_ever(tmp_path: Path) -> None:
    assert save_sheet(Samples(texts=("a",)), tmp_path / "step-1", rows=["x"]).suffix == ".txt"
    assert save_sheet(Samples(points=torch.zeros(3, 2)), tmp_path / "step-2", rows=["x"]).suffix == ".png"


def test_the_way_of_styles_is_straight_in_w_and_of_normal_noise_a_circle() -> None:
    from trainjobs.models.stylegan2 import Generator

    torch.manual_seed(0)
    generator = Generator(latent_dim=6, channels=2, size=8, image_channels=1)
    places = torch.arange(9)
    way = Between.of(3, places, 4)
    z = [Noise(3, torch.tensor([n])).normal("z", 6) for n in range(4)]
    with torch.no_grad():
        w = [generator.mapping(one) for one in z]
        styles = generator.styles(way.normal("z", 6), way)
    for place in places.tolist():
        first, share = place // 4, place % 4 / 4
        angle = torch.tensor(share * torch.pi / 2)
        torch.testing.assert_close(way.normal("z", 6)[place : place + 1], angle.cos() * z[first] + angle.sin() * z[first + 1])
        straight = (1 - share) * w[first] + share * w[first + 1]
        torch.testing.assert_close(styles[place], straight.expand(generator.layers, -1), rtol=1e-5, atol=1e-6)
