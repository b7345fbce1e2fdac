"""A run's record in its store is beside the training: whatever becomes of the record, the training ends with the weights that it has
without, and what is wrong is told once, at the run's end, by `gtj status`, and in the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Done, Shell, small_disk

from trainjobs.head.recorder import UNKEPT
from trainjobs.run.recorded import fetch
from trainjobs.stores.file import FileStore

pytestmark = pytest.mark.slow

LINES = 1_000_000
Trained = tuple[list[str], bytes]
# Says so many lines amid the training, and writes down the loss of each step, to the last bit: metrics.jsonl has some steps, by their pace.
LOUD = """
import sys
from pathlib import Path
from tests.e2e_local.mean import Mean

class Loud(Mean):
    def __init__(self, lines):
        super().__init__()
        self.lines = lines
    def loss(self, batch):
        self.calls += 1
        if self.calls == 3:
            sys.stdout.writelines(f"{number} a line\\n" for number in range(self.lines))
            sys.stdout.flush()
        loss, told = super().loss(batch)
        with Path("losses").open("a") as file:
            file.write(loss.item().hex() + "\\n")
        return loss, told

def build(spec, info):
    return Loud(spec.custom.options["lines"]).built()
"""


def train(shell: Shell, lines: int = 0, store: str = "store") -> Done:
    (shell.path / "loud.py").write_text(LOUD)
    shell.manifest(
        vae=None,
        custom={"objective": "loud:build", "options": {"lines": lines}},
        checkpoints={"uri": f"file://{shell.path}/{store}", "every": {"steps": 2}, "keep": {"last": 3}},
    )
    return shell.train()


def trained(shell: Shell) -> Trained:
    """The loss of each step, and the weights of the last checkpoint."""
    (weights,) = (shell.path / "store" / "job" / "steps").glob("*6-a1/rank-0/mean.safetensors")
    return (shell.path / "losses").read_text().split(), weights.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    shell = Shell(tmp_path_factory.mktemp("undisturbed"))
    done = train(shell)
    assert done.returncode == 0, done.stderr
    assert UNKEPT not in done.stdout + done.stderr
    assert (shell.path / "store" / "job" / "run" / "a1" / "job.json").exists(), "there is a record to disturb"
    found = trained(shell)
    assert len(set(found[0])) == 6, "a loss for each step"
    return found


def unharmed(done: Done, shell: Shell, undisturbed: Trained, why: str) -> None:
    assert done.returncode == 0, done.stderr
    for told in (done.stderr, shell.gtj("status", "run").stdout, (shell.path / "run" / "report.html").read_text()):
        assert told.count(UNKEPT) == 1, told
        assert why in told
    assert trained(shell) == undisturbed
    assert shell.gtj("checkpoints", "verify", "run").returncode == 0


def test_a_store_that_refuses_the_record(shell: Shell, undisturbed: Trained) -> None:
    """It takes checkpoints: where the record should go stands a file."""
    (shell.path / "store" / "job").mkdir(parents=True)
    (shell.path / "store" / "job" / "run").write_text("a file")
    unharmed(train(shell), shell, undisturbed, "Not a directory")


def test_a_full_disk_where_the_record_goes(tmp_path: Path, undisturbed: Trained) -> None:
    with small_disk(tmp_path, "64k") as shell:
        (tmp_path / "store" / "job").mkdir(parents=True)
        (tmp_path / "store" / "job" / "run").symlink_to(tmp_path / "disk")
        unharmed(train(shell, lines=100_000), shell, undisturbed, "No space left on device")


def test_a_million_lines_of_log(shell: Shell, undisturbed: Trained) -> None:
    done = train(shell, LINES)
    assert done.returncode == 0, done.stderr[-2000:]
    assert UNKEPT not in done.stderr
    assert trained(shell) == undisturbed
    kept = fetch(FileStore(shell.path / "store" / "job"), shell.path / "got") / "logs"
    assert sum(path.read_text().count(" a line\n") for path in kept.iterdir() if path.is_file()) == LINES
