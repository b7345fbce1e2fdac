"""Servers for the tests in this folder: each is started when first asked for, and serves the whole session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoints"))  # second_reader, faulty_store

from tests.stores.servers import NAMES, Service, Start, service, why_not


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with ExitStack() as stack:
        running: dict[str, Service] = {}

        def get(name: str) -> Service:
            if why := why_not(name):
                pytest.skip(why)
            if name not in running:
                running[name] = stack.enter_context(service(name, tmp_path_factory.mktemp(name)))
            return running[name]

        yield get


@pytest.fixture(params=NAMES)
def server(request: pytest.FixtureRequest, start: Start, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Each server in turn, with the environment that leads the SDKs to it."""
    found = start(request.param)
    for name, value in found.environ().items():
        monkeypatch.setenv(name, value)
    return found
