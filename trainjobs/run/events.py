"""TensorBoard event files, through tensorboardX: no TensorFlow, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """One event file in `folder`. A resumed run opens another one beside it; TensorBoard reads them all."""

    def __init__(self, folder: Path | str) -> None:
        from tensorboardX import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), flush_secs=10)

    def scalars(self, step: int, row: Mapping[str, float]) -> None:
        """One point per metric, each under its own name."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, tag: str, picture: Any) -> None:
        """A picture: uint8 array [H, W, C]."""
        self._writer.add_image(tag, picture, step, dataformats="HWC")

    def text(self, step: int, tag: str, text: str) -> None:
        self._writer.add_text(tag, text, step)

    def close(self) -> None:
        self._writer.close()
