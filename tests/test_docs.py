"""The commands that the documentation shows are run, page by page, in the order in which a reader would type them.

Training is cut to a few steps: that the samples train well is another test's business. `make`, `git` and the shell's own words are not run
here; that the targets exist is checked in test_house.py.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# These need a cluster: tests/e2e runs the first, tests/integration/test_start_clouds.py the others.
ELSEWHERE = {ROOT / "docs" / "start" / f"{name}.md" for name in ("cluster", "eks", "gke", "aks")}
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page not in ELSEWHERE)]
NOT_RUN = {"make", "git", "cd", "."}
STEPS = "4"


def commands(page: Path) -> list[str]:
    """Lines after a "$ " in console blocks, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def shortened(words: list[str], *, alone: bool = False) -> list[str]:
    """`gtj run` with a few steps, whatever the page says; `alone`, in one process without Ray."""
    if words[:2] != ["gtj", "run"]:
        return words
    at = words.index("--steps") if "--steps" in words else len(words)
    return [*words[:at], *words[at + 2 :], "--steps", STEPS, *(["--no-ray"] if alone else [])]


def run(command: str, folder: Path, *, alone: bool) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        shortened(shlex.split(command), alone=alone), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


RUN = [page for page in PAGES if any(command.startswith("gtj") for command in commands(page))]


def test_the_pages_have_commands() -> None:
    assert {"README.md", "laptop.md", "gan.md", "vae.md", "diffusion.md", "language.md"} <= {page.name for page in RUN}


def test_only_known_words_are_left_out() -> None:
    first = {command.split()[0] for page in PAGES for command in commands(page)}
    assert first <= NOT_RUN | {"gtj"}


def test_steps_are_replaced_not_added() -> None:
    assert shortened(["gtj", "run", "-f", "x", "--steps", "300", "--fresh"]) == ["gtj", "run", "-f", "x", "--fresh", "--steps", "4"]
    assert shortened(["gtj", "status", "x"]) == ["gtj", "status", "x"]


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the documented runs have two workers, and there is one core")
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")  # no link: a page may name what lies beside it
    alone = page.parent.name == "tutorials"  # there it is about families; README and start/ are run as they stand
    for command in commands(page):
        if command.split()[0] in NOT_RUN:
            continue
        done = run(command, tmp_path, alone=alone)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("name", ["gan", "vae", "diffusion"])
def test_a_tutorial_shows_what_its_runs_drew(name: str) -> None:
    page = ROOT / "docs" / "tutorials" / f"{name}.md"
    pictures = [page.parent / found for found in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())]
    assert pictures
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 100_000
