"""TensorBoard event files, by tensorboardX's messages: no TensorFlow, no torch.

Written here record by record, in one write each, and not through tensorboardX's writer: that one keeps what it is given in a queue and a
buffer for seconds, so a run that is killed behind a commit would lack points in front of it.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

VERSION = "brain.Event:2"  # from it on, readers purge what is behind the step of a START


class Events:
    """One event file in `folder`. A run that goes on from `step` opens another one beside those of before: TensorBoard reads them all, in
    the order of their names, and purges what they tell of later steps."""

    def __init__(self, folder: Path | str, step: int = 0, now: Callable[[], float] = time.time) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event, self._now = Event, now
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        before = len(list(folder.glob("events.out.tfevents.*")))
        # Named for the second, as everybody does; a run that goes back within one must not write over what was before.
        number = f".{before:03d}" if before else ""
        self._file = (folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}{number}").open("ab", buffering=0)
        self._write(file_version=VERSION)
        if before or step:
            self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, row: Mapping[str, float]) -> None:
        """One point per metric, each under its own name. They are in the file when this returns: a commit may follow, and then a crash."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        self._write(step=step, summary=Summary(value=values))

    def image(self, step: int, tag: str, picture: Any) -> None:
        """A picture: uint8 array [H, W, C]."""
        from tensorboardX import summary

        self._write(step=step, summary=summary.image(tag, picture, dataformats="HWC"))

    def text(self, step: int, tag: str, text: str) -> None:
        from tensorboardX import summary

        self._write(step=step, summary=summary.text(tag, text))

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        """A record: its length, the length's checksum, itself, its checksum (TensorFlow's TFRecord)."""
        from tensorboardX.record_writer import masked_crc32c

        data = self._event(wall_time=self._now(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data)))
