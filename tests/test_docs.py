"""The commands that the documentation shows are run, page by page, in the order in which a reader would type them.

Training is cut to a few steps: that the samples train well is another test's business. `make`, `git` and the shell's own words are not run
here; that the targets exist is checked in test_house.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
# These need a cluster: tests/e2e runs the first, tests/integration/test_start_clouds.py the others.
ELSEWHERE = {ROOT / "docs" / "start" / f"{name}.md" for name in ("cluster", "eks", "gke", "aks")}
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page not in ELSEWHERE)]
NOT_RUN = {"make", "git", "cd", "."}
# Each goes on where the one before it ended, with the files that they show, in a folder that they call /tutorial.
CHAIN = [ROOT / "docs" / "tutorials" / f"{name}.md" for name in ("lora", "preferences", "grpo")]
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


def assigned(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Variables that stand before a command, and the command."""
    first = next(number for number, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:first]), words[first:]


def files(page: Path) -> dict[str, str]:
    """Blocks that begin with a comment of their name, such as "# lora.yaml"."""
    blocks = re.findall(r"^```(?:yaml|python)\n# (\w+\.(?:yaml|py))\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


def run(command: str, folder: Path, *, alone: bool) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given, words = assigned(shlex.split(command))
    if "PYTHONPATH" in given:
        given["PYTHONPATH"] = os.pathsep.join(filter(None, (given["PYTHONPATH"], os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | given
    return subprocess.run(shortened(words, alone=alone), cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


RUN = [page for page in PAGES if page not in CHAIN and any(command.startswith("gtj") for command in commands(page))]


def test_the_pages_have_commands() -> None:
    assert {"README.md", "laptop.md", "gan.md", "vae.md", "diffusion.md", "language.md"} <= {page.name for page in RUN}


def test_only_known_words_are_left_out() -> None:
    first = {assigned(command.split())[1][0] for page in PAGES for command in commands(page)}
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


@pytest.mark.slow
def test_tutorials_that_go_on_from_each_other_work_in_their_order(tmp_path: Path) -> None:
    """Which leave an adapter that is merged, a preference that is measured, and a function of ten lines that was asked."""
    told = set()
    for page in CHAIN:
        for name, text in files(page).items():
            (tmp_path / name).write_text(text.replace("file:///tutorial", f"file://{tmp_path}"))
        for command in commands(page):
            done = run(command + (" --set data.limit=100" if " run " in command else ""), tmp_path, alone=True)
            assert done.returncode == 0, f"{page.name}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    for path in (tmp_path / "gentrain-runs").glob("*/metrics.jsonl"):
        told |= {f"{path.parent.name} {name}" for row in path.read_text().splitlines() for name in json.loads(row)}
    assert {"lora heldout/loss", "sft heldout/loss", "dpo heldout/win_rate", "grpo heldout/win_rate", "grpo reward"} <= told
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_the_reward_of_the_tutorial_is_a_function_of_ten_lines() -> None:
    text, space = files(CHAIN[2])["rewards.py"], dict[str, Any]()
    assert len(text.splitlines()) <= 10
    exec(text, space)
    assert space["words"](prompts=[], completions=["a b" * 8, "A" * 24, "a"]) == [1.0, 0.0, 1 / 24]


@pytest.mark.parametrize("name", ["gan", "vae", "diffusion"])
def test_a_tutorial_shows_what_its_runs_drew(name: str) -> None:
    page = ROOT / "docs" / "tutorials" / f"{name}.md"
    pictures = [page.parent / found for found in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())]
    assert pictures
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 100_000
