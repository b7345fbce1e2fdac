"""A shell in an empty folder, and a finished run to damage."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps, with checkpoints of steps 2, 4 and 6. Not to be written."""
    first = Shell(tmp_path_factory.mktemp("finished"))
    first.manifest()
    done = first.train()
    assert done.returncode == 0, done.stderr
    return first.path


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Shell:
    """A copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Shell(tmp_path)
