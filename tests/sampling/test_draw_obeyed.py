"""A model that was told what it sees draws what it is asked for: colours soon, by a judge that looks at pixels. Shapes take longer;
bench/results/demo.json has them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group

from tests.sampling.judge import obeyed
from trainjobs.cli.main import status
from trainjobs.data.shapes import COLOURS, SHAPES

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "diffusion-shapes.yaml"
PROMPTS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's own manifest, a sixth of its steps in one process."""
    root = tmp_path_factory.mktemp("obedience")
    spec = yaml.safe_load(SAMPLE.read_text())["spec"]
    spec["training"]["steps"] = 280
    spec |= {"compute": {"workers": 1, "gpusPerWorker": 0}, "evaluation": {"samples": 1}, "checkpoints": {}}
    run = group.prepare(root / "shapes", spec)
    group.run_group(1, [str(run)], root, script="at_once.py", timeout=900)
    return run


def drawn(run: Path, out: Path, guidance: float) -> tuple[int, int]:
    prompts = out.with_suffix(".txt")
    prompts.write_text("\n".join(PROMPTS))
    count = str(2 * len(PROMPTS))
    assert status(["sample", str(run), "--prompts", str(prompts), "--count", count, "--guidance", str(guidance), "--out", str(out)]) == 0
    told = json.loads((out / "samples.json").read_text())["drawn"]
    pictures = [torch.from_numpy(np.asarray(Image.open(out / one["file"]).convert("RGB"), np.float32) / 255) for one in told]
    return obeyed(torch.stack(pictures).permute(0, 3, 1, 2), [one["prompt"] for one in told])


def test_colours_are_obeyed_and_guidance_raises_it(run: Path, tmp_path: Path) -> None:
    led, plain = drawn(run, tmp_path / "led", 3.0), drawn(run, tmp_path / "plain", 1.0)
    print(f"of {2 * len(PROMPTS)}, (colours, shapes): guidance 3 {led}, guidance 1 {plain}")
    assert led[0] >= 0.75 * 2 * len(PROMPTS)  # by chance a sixth of them
    assert led[0] > plain[0]
