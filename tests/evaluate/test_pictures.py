"""Pictures read back with Pillow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from trainjobs.data.ring import MODES, SIGMA
from trainjobs.evaluate.pictures import GAP, MARGIN, PLOT, ROW, document, grid, save_pairs, save_samples, scatter, ticks
from trainjobs.objectives.phase import Samples


def test_small_images_become_cells_that_can_be_seen(tmp_path: Path) -> None:
    images = torch.full((5, 1, 8, 8), -1.0)
    images[1] = 1.0
    images[2, 0, 0, 7] = 0.0  # one grey pixel, top right of the third
    path = save_samples(Samples(images=images), tmp_path / "samples" / "step-000100")
    assert path == tmp_path / "samples" / "step-000100.png"
    assert [entry.name for entry in path.parent.iterdir()] == ["step-000100.png"]
    with Image.open(path) as picture:
        assert picture.mode == "L"
        assert picture.size == (3 * 34 + GAP, 2 * 34 + GAP)
        assert picture.getpixel((GAP + 5, GAP + 5)) == 0
        assert picture.getpixel((GAP + 34 + 5, GAP + 5)) == 255
        assert picture.getpixel((GAP + 68 + 31, GAP)) == 128
        assert picture.getpixel((GAP + 68 + 31, GAP + 4)) == 0  # a pixel is 4 x 4 here
        assert picture.getpixel((GAP + 68 + 5, GAP + 34 + 5)) == 128  # no sixth image: the ground


@pytest.mark.parametrize(("count", "columns", "rows"), [(3, 3, 2), (8, 8, 2), (11, 8, 4)])
def test_each_original_stands_above_what_was_made_of_it(count: int, columns: int, rows: int, tmp_path: Path) -> None:
    originals = torch.linspace(-1.0, 0.0, count).view(-1, 1, 1, 1).expand(count, 1, 32, 32)
    path = save_pairs(Samples(images=originals), Samples(images=-originals), tmp_path / "reconstructed-000010")
    assert path == tmp_path / "reconstructed-000010.png"
    with Image.open(path) as picture:
        assert picture.size == (columns * 34 + GAP, rows * 34 + GAP)
        for number in range(count):
            x, y = GAP + number % ROW * 34 + 9, GAP + number // ROW * 2 * 34 + 9
            above, below = picture.getpixel((x, y)), picture.getpixel((x, y + 34))
            assert isinstance(above, int)
            assert isinstance(below, int)
            assert above + below == pytest.approx(255, abs=1)
            assert above == pytest.approx((float(originals[number, 0, 0, 0]) + 1) * 127.5, abs=1)


def test_reconstructed_points_are_a_plot_and_texts_are_none(tmp_path: Path) -> None:
    points = Samples(points=torch.zeros(4, 2))
    assert save_pairs(points, points, tmp_path / "a") == tmp_path / "a.png"
    assert save_pairs(Samples(texts=("a",)), Samples(texts=("a",)), tmp_path / "b") is None


def test_colour_images_keep_their_size_and_colours_and_bad_values_are_shown() -> None:
    images = torch.zeros(1, 3, 64, 64)
    images[0, :, 0, 0] = torch.tensor([1.0, -1.0, 9.0])
    images[0, :, 0, 1] = float("nan")
    picture = grid(images)
    assert picture.size == (64 + 2 * GAP,) * 2
    assert picture.getpixel((GAP, GAP)) == (255, 0, 255)
    assert picture.getpixel((GAP + 1, GAP)) == (0, 0, 0)


def red_pixels(picture: Image.Image) -> int:
    red, green, _ = (torch.frombuffer(bytearray(band.tobytes()), dtype=torch.uint8) for band in picture.split())
    return int(((red > 180) & (green < 120)).sum())


def test_points_are_drawn_where_they_are_and_modes_are_circled() -> None:
    empty, marked = scatter(torch.zeros(0, 2), MODES, SIGMA), scatter(torch.tensor([[1.0, 0.5]]), MODES, SIGMA)
    assert marked.size == (PLOT, PLOT)
    half = 1.4 * 2.0
    scale = (PLOT - 2 * MARGIN) / (2 * half)
    changed = [(x, y) for x in range(PLOT) for y in range(PLOT) if empty.getpixel((x, y)) != marked.getpixel((x, y))]
    centre = [sum(values) / len(changed) for values in zip(*changed, strict=True)]
    assert centre == pytest.approx([MARGIN + (1.0 + half) * scale, PLOT - MARGIN - (0.5 + half) * scale], abs=1.5)
    assert red_pixels(empty) > 8 * 10
    assert red_pixels(scatter(torch.zeros(0, 2))) == 0


def test_points_that_are_no_numbers_or_far_away_are_left_out() -> None:
    bad = torch.tensor([[float("nan"), 0.0], [float("inf"), 1.0], [1e9, 0.0]])
    assert scatter(bad, MODES, SIGMA).tobytes() == scatter(torch.zeros(0, 2), MODES, SIGMA).tobytes()


@pytest.mark.parametrize("half", [1e-6, 0.7, 1.0, 2.8, 5.0, 9.99, 123.0])
def test_ticks_are_round_and_few(half: float) -> None:
    numbers = ticks(half)
    assert 4 <= len(numbers) <= 11
    assert 0.0 in numbers
    assert all(-half <= number <= half for number in numbers)


def test_texts_are_written_as_they_are(tmp_path: Path) -> None:
    path = save_samples(Samples(texts=("def f():\n    return 1", "grüße")), tmp_path / "step-000007")
    assert path.name == "step-000007.txt"
    assert path.read_text(encoding="utf-8") == document(("def f():\n    return 1", "grüße"))
    assert path.read_text(encoding="utf-8") == "--- 1 ---\ndef f():\n    return 1\n\n--- 2 ---\ngrüße\n"


def test_no_samples_are_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        save_samples(Samples(), tmp_path / "x")
