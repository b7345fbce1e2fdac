"""Writes the runs of before/: `python -m tests.checkpointer.write FOLDER` in a checkout, with its root and operator/ on PYTHONPATH.

They are what Gentrain 0.1.0 at commit 02e41dc has left (torch and DeepSpeed as each commit's metadata says): job.json, the store of
checkpoints, and expected.json, which says what that version restores from it, as digests. They stand for the checkpoints that users have,
so they are not written anew when the format changes: a version that cannot read them breaks its users' runs. To see how they came about,
check out that commit, add this folder, and write into another FOLDER.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.checkpointer.whole import WORKER, of_size, restored
from tests.equivalence import group

STEPS, STOP = 12, 6
ADAMW = {"name": "adamw", "learningRate": 1e-2, "weightDecay": 0.01}
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
NETWORK = {"architecture": "mlp", "channels": 9, "layers": 2}  # an odd width: no part is even
# name: (workers, what is special about the job)
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "gan": (
        2,
        {
            "gan": {"generator": {**NETWORK, "latentDim": 5, "normalization": "batch"}, "discriminator": {**NETWORK, "spectralNorm": True}},
            "data": {"source": "builtin:ring"},
            "deepspeed": {"stage": 2},
            "recovery": {"onLossSpike": "rollback"},
        },
    ),
    "custom": (
        1,
        {
            "custom": {"objective": "tests.checkpointer.counted:build"},
            "data": DIGITS,
            "deepspeed": {"stage": 0},
            "optimizer": {"name": "sgd", "learningRate": 1e-2, "momentum": 0.9},
        },
    ),
    "language": (
        2,
        {
            "language": {"network": {"layers": 1, "hidden": 18, "heads": 3, "contextLength": 16, "dropout": 0.2}},
            "data": {"source": "builtin:stdlib-text"},
            "deepspeed": {"stage": 3},
            "precision": "bf16",  # the weights of the network are not those of the optimizer
        },
    ),
}


def spec(workers: int, special: dict[str, Any]) -> dict[str, Any]:
    special = dict(special)
    optimizer, precision = special.pop("optimizer", ADAMW), special.pop("precision", "fp32")
    return {
        **special,
        "training": {
            "steps": STEPS,
            "batch": {"global": 8, "micro": 2},
            "precision": precision,
            "optimizers": {"default": optimizer},
            "schedule": {"name": "cosine", "warmupSteps": 3},
            "gradientClipping": 1.0,
            "ema": {"decay": 0.9},
        },
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STOP}, "keep": {"last": 2}},
        # Not at the step that is saved: an evaluation gives every rank the buffers of rank 0.
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


def write(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for case, (workers, special) in CASES.items():
            run = group.prepare(scratch / case, spec(workers, special))
            group.run_group(workers, [f"{run}={STOP}"], scratch)
            shutil.copytree(run / "checkpoints", folder / case / "checkpoints")
            shutil.copy(run / "job.json", folder / case)
        found = {}
        for size in (1, 2):
            runs = [shutil.copytree(folder / case, scratch / f"{case}-{size}") for case in CASES]
            group.run_group(size, [str(run) for run in runs], scratch, script=WORKER)
            found[size] = {case: restored(run, size) for case, run in zip(CASES, runs, strict=True)}
        for case in CASES:
            assert found[1][case] == of_size(found[2][case], 1), "one worker and two restore the same"
            (folder / case / "expected.json").write_text(json.dumps(found[2][case], indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
