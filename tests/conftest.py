"""What all tests share: no example is failed for being slow on a busy machine, the order of files, which files are
imported, a limit of time, and a way to tell whoever waits."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.dearest import turn

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

HERE = Path(__file__).parent
BEGAN = time.monotonic()
MINUTES = float(
    os.environ.get("GENTRAIN_MINUTES", "inf")
)  # on a machine of a third of the usual speed all tests take longer than anybody waits
WHOLLY_SLOW = re.compile(r"^pytestmark = [^\n]*mark\.slow", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file of which `-m slow` or `-m "not slow"` leaves nothing is not imported: diffusers and transformers take seconds each."""
    chosen = config.getoption("markexpr")
    if chosen not in ("slow", "not slow") or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text()
    return True if (WHOLLY_SLOW.search(text) if chosen == "not slow" else "mark.slow" not in text) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """File by file, the dearest first; within a file as they stand there."""
    items.sort(key=lambda item: turn(item.path.relative_to(HERE).as_posix()) if item.path.is_relative_to(HERE) else 0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What has not begun when the time is over is skipped, before its fixtures: the dearest files have begun first."""
    if time.monotonic() - BEGAN > 60 * MINUTES:
        pytest.skip(f"the {MINUTES:g} minutes of GENTRAIN_MINUTES are over")


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints past pytest's capture: a first build takes minutes, and whoever waits wants to know."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{text}", flush=True)

    return line
