"""docs/start/eks.md, gke.md and aks.md: what is run (tests/integration/test_start_clouds.py) and what is not are told apart in the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_docs import ROOT, commands

PAGES = [ROOT / "docs" / "start" / f"{name}.md" for name in ("eks", "gke", "aks")]
RUN = {"kubectl", "gtj", "helm"}
SECTIONS = ("cluster", "Operators", "Bucket and identity", "Queues", "first jobs", "Tear-down")


def unmarked(text: str) -> list[str]:
    """Blocks of the shell that are not run and do not say so in their first line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if not block.startswith("# not run")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_so(page: Path) -> None:
    text = page.read_text()
    assert {command.split()[0] for command in commands(page)} == RUN
    assert "# not run" in text
    assert unmarked(text) == []
    assert re.findall(r"^```(?!console|sh|$)(\w+)", text, re.MULTILINE) == []
    assert all(re.search(rf"^## \d+\. .*{name}$", text, re.MULTILINE) for name in SECTIONS)


def test_canary_an_unmarked_block_is_seen() -> None:
    assert unmarked("```sh\ngcloud auth login\n```\n") == ["gcloud auth login\n"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_the_lines_name_are_there(page: Path) -> None:
    named = re.findall(r"(?:-f|-p|--template-file|install gentrain) ((?:manifests|charts)/\S+)", page.read_text())
    assert len(named) >= 6
    assert not [name for name in named if not (ROOT / name).exists()]
