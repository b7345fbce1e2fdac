"""An uploader that does its work in the worker's own process when it is asked for the answer: no process is started, which takes longer
than runs of a few steps. What is uploaded and committed is the same. A run that is to have the process, as it has outside of tests, has a
file PROCESS in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpointer import saver, uploader
from trainjobs.checkpoints import Checkpoints, open_store

PROCESS = "uploader"


def choose(run: Path) -> None:
    """For the saver that this process makes next."""
    saver.Uploader = uploader.Uploader if (run / PROCESS).exists() else AtOnce  # type: ignore[misc, assignment]


class AtOnce:
    def __init__(self, uri: str, keep: Keep) -> None:
        self._checkpoints = Checkpoints(open_store(uri), keep=keep)
        self._asked: Any = None

    def upload(
        self, prefix: str, rank: int, attempt: int, files: Mapping[str, int], index: bytes, *, beside: Mapping[str, bytes] | None = None
    ) -> None:
        texts = {**(beside or {}), uploader.INDEX: index}
        self._checkpoints.join(attempt)
        self._asked = partial(uploader._upload, self._checkpoints, prefix, rank, dict(files), texts)

    def commit(self, prefix: str, arguments: Mapping[str, Any]) -> None:
        self._asked = partial(self._committed, prefix, dict(arguments))

    def _committed(self, prefix: str, arguments: dict[str, Any]) -> Any:
        commit = self._checkpoints.commit(prefix, **arguments)
        uploader._retain(self._checkpoints)
        return commit

    def ready(self) -> bool:
        return self._asked is not None

    def answer(self) -> Any:
        asked, self._asked = self._asked, None
        try:
            return asked()
        except Exception as error:
            return error

    def close(self, patience: float = 60.0) -> None:
        self._asked = None
