"""What a run's job is other than its manifest says."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainjobs.cli.changes import noted, options
from trainjobs.cli.manifest import load_job
from trainjobs.cli.run import local

MANIFEST = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {name: faces}
spec:
  vae: {}
  data: {source: builtin:digits}
  training: {steps: 1500, batch: {global: 64}, optimizers: {default: {name: adamw, learningRate: 1e-3}}}
  compute: {workers: WORKERS, gpusPerWorker: 0}
"""


@pytest.mark.parametrize(
    ("workers", "sets", "steps", "given", "no_ray", "expected"),
    [
        ("2", (), None, None, False, {}),
        ("2", (), 60, None, False, {"spec.training.steps": ("--steps 60", 1500)}),
        ("2", ("training.steps=60",), None, None, False, {"spec.training.steps": ("--set training.steps=60", 1500)}),
        (
            "2",
            ("training.seed=3", "spec.training.optimizers.default.learningRate=0.1"),
            None,
            None,
            False,
            {
                "spec.training.seed": ("--set training.seed=3", None),
                "spec.training.optimizers.default.learningRate": ("--set spec.training.optimizers.default.learningRate=0.1", 0.001),
            },
        ),
        ("2", (), None, 1, False, {"spec.compute.workers": ("--workers 1", 2)}),
        ("2", (), None, None, True, {"spec.compute.workers": ("--no-ray", 2)}),
        ("2", ("compute.workers=4",), None, 1, False, {"spec.compute.workers": ("--workers 1", 2)}),
        ('"1-64"', (), None, None, False, {"spec.compute.workers": ("the 2 cores of this machine", "1-64")}),
    ],
)
def test_changes_are_noted_with_what_made_them(
    workers: str,
    sets: tuple[str, ...],
    steps: int | None,
    given: int | None,
    no_ray: bool,
    expected: dict[str, tuple[str, object]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(MANIFEST.replace("WORKERS", workers))
    manifest = load_job(str(path), [*sets, *([f"training.steps={steps}"] if steps else [])], given or (1 if no_ray else None))
    assert manifest.job is not None
    after = local(manifest.job, given, no_ray, False, 2)
    found = noted(manifest.changes, steps, manifest.job, after, options(given, no_ray, False, 2))
    assert {name: (change["by"], change["was"]) for name, change in found.items()} == expected
