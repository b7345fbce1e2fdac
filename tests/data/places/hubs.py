"""Fixtures of the hub: a stand-in for it that huggingface_hub talks to, and time that passes only while somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.data.places.hub_server import Repository, Server, hub_server
from trainjobs.stores.patience import Patience


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.time, self.pauses = 0.0, list[float]()

    def pause(self, seconds: float) -> None:
        self.time += seconds
        self.pauses.append(seconds)

    def patience(self, seconds: float = 20.0) -> Patience:
        return Patience(seconds, now=lambda: self.time, pause=self.pause, chance=lambda: 1.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Serve = Callable[..., Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """serve({"org/name": {"train.jsonl": b"..."}}): a hub with these datasets that huggingface_hub talks to, without a token."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with ExitStack() as stack:

        def start(repositories: dict[str, dict[str, bytes] | Repository]) -> Server:
            made = {name: one if isinstance(one, Repository) else Repository(one) for name, one in repositories.items()}
            server = stack.enter_context(hub_server(made))
            monkeypatch.setattr(constants, "ENDPOINT", server.url)
            return server

        yield start
