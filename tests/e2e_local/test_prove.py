"""`gtj prove-resume`: runs that resume to the last bit, and objectives that cannot, told apart from those that cannot even be repeated."""

from __future__ import annotations

import json
import re

import pytest
from shell import SPEC, Shell, refused

pytestmark = pytest.mark.slow

# Draws from a generator of its own, seeded when it is built: repeatable, but a resumed run draws from the beginning again.
DRAWING = """
import random
from tests.e2e_local.mean import Mean

class Drawing(Mean):
    def __init__(self, seed):
        super().__init__()
        self.dice = random.Random(seed)
    def loss(self, batch):
        loss, metrics = super().loss(batch)
        weight = 1 + self.dice.random()
        return weight * loss, {"loss": weight * metrics["loss"]}

def build(spec, info):
    return Drawing(spec.custom.options.get("seed")).built()
"""


def drawing(shell: Shell, **options: int) -> None:
    (shell.path / "drawing.py").write_text(DRAWING)
    shell.manifest(vae=None, custom={"objective": "drawing:build", "options": options}, training={**SPEC["training"], "steps": 6})


def test_bit_exact(shell: Shell) -> None:
    shell.manifest(checkpoints={"uri": "s3://nobody/asks/for/this", "resumeFrom": "s3://nor/for/this"})
    done = shell.gtj("prove-resume", "-f", "job.yaml", "--no-ray", "--steps", 40, "--kill-at", 10, "--keep", "kept")
    assert done.returncode == 0, done.stderr
    assert re.match(r"bit-exact  job: 40 steps, killed after step \d+, resumed from step (6|12|18|24|30|36)\n", done.stdout)
    assert "of steps 6, 12, 18, 24, 30, 36, 40:" in done.stdout
    assert "killed by SIGKILL" in done.stderr
    attempts = [json.loads(line)["event"] for line in (shell.path / "kept" / "killed" / "attempts.jsonl").read_text().splitlines()]
    assert attempts.count("worker-lost") == attempts.count("resumed") == 1


def test_what_is_not_in_the_checkpoint_is_missed_at_the_first_step_after_it(shell: Shell) -> None:
    drawing(shell, seed=1)
    done = shell.gtj("prove-resume", "-f", "job.yaml", "--no-ray", "--steps", 40, "--kill-at", 10, "-o", "json")
    assert done.returncode == 5, done.stderr
    told = json.loads(done.stdout)
    assert not told["exact"]
    assert told["repeatable"]
    assert (told["first"]["step"], told["first"]["kind"], told["first"]["quantity"]) == (told["resumedFrom"] + 1, "metric", "loss")
    assert told["first"]["undisturbed"] != told["first"]["resumed"]
    saved = {difference["step"] for difference in told["differences"] if difference["kind"] == "checkpoint"}
    assert saved == {step for step in told["compared"]["checkpoints"] if step > told["resumedFrom"]} != set()
    left = re.search(r"undisturbed: 40 steps in (\S+)/undisturbed", done.stderr)
    assert left
    assert not shell.path.joinpath(left[1]).exists(), "without --keep nothing stays"


def test_what_cannot_be_repeated_is_told_apart(shell: Shell) -> None:
    drawing(shell)
    done = shell.gtj("prove-resume", "-f", "job.yaml", "--no-ray", "--steps", 40, "--kill-at", 10)
    assert done.returncode == 5, done.stderr
    assert done.stdout.startswith("different  job: 40 steps")
    assert "first       step 1, loss: " in done.stdout
    assert "not repeatable even without a kill" in done.stdout


def test_a_run_that_fails_says_why_and_where(shell: Shell) -> None:
    shell.environment["TMPDIR"] = str(shell.path)
    shell.manifest(data={"source": f"file://{shell.path}/nothing", "images": {"size": 8, "channels": 1}})
    done = shell.gtj("prove-resume", "-f", "job.yaml", "--no-ray")
    assert done.returncode == 7, done.stderr
    assert "GTJ0113" in done.stderr
    assert f"the runs are kept in {shell.path}/gtj-prove-" in done.stderr
    assert done.stdout == ""


def test_what_proves_nothing_is_refused(shell: Shell) -> None:
    shell.manifest()
    (shell.path / "full").mkdir()
    (shell.path / "full" / "file").touch()
    for arguments, phrase in (
        (("--steps", 5, "--kill-at", 5), "leaves nothing to resume"),
        (("--keep", "full"), "the folder is not empty"),
        (("--steps", 1), "--steps"),
    ):
        done = shell.gtj("prove-resume", "-f", "job.yaml", *arguments)
        assert done.returncode == 2
        assert phrase in done.stderr
    shell.manifest(training={**SPEC["training"], "stepps": 3})
    refused(shell.gtj("prove-resume", "-f", "job.yaml"), "GTJ0101", 3, "stepps")
