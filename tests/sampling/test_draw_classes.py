"""A GAN of classes, trained on digits, draws what it is asked for: read off its samples by a classifier that knows the digits alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group

from trainjobs.cli.main import status

pytestmark = pytest.mark.slow

STEPS, EACH, SIZE = 450, 20, 16


def test_most_samples_of_a_label_look_like_it(tmp_path: Path) -> None:
    network = {"architecture": "dcgan", "channels": 64}
    spec = {
        "gan": {
            "generator": {**network, "latentDim": 16},
            "discriminator": {**network, "spectralNorm": True},
            "loss": {"type": "hinge"},
            "conditional": True,
        },
        "data": {"source": "builtin:digits", "images": {"size": SIZE, "channels": 1}},
        "training": {
            "steps": STEPS,
            "batch": {"global": 64},
            "optimizers": {
                "generator": {"name": "adam", "learningRate": 0.001, "betas": [0.0, 0.9]},
                "discriminator": {"name": "adam", "learningRate": 0.002, "betas": [0.0, 0.9]},
            },
        },
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 10, "everySteps": STEPS},
    }
    run = group.prepare(tmp_path / "run", spec)
    group.run_group(1, [str(run)], tmp_path, script="at_once.py")
    assert status(["sample", str(run), "--count", str(10 * EACH), "--out", str(tmp_path / "drawn")]) == 0

    images, labels = load_digits(return_X_y=True)
    classifier = KNeighborsClassifier(5).fit(images, labels)
    pictures = [Image.open(tmp_path / "drawn" / f"{n:04}.png").convert("L") for n in range(10 * EACH)]
    drawn = [np.asarray(picture.resize((8, 8), Image.Resampling.BOX), dtype=float) for picture in pictures]
    said = classifier.predict(np.stack(drawn).reshape(len(drawn), -1) * 16 / 255)
    right = [float((said[label::10] == label).mean()) for label in range(10)]
    assert np.mean(right) > 0.6, f"by label: {right}"
