"""Event files as TensorBoard shows them, by its own rules: the files of a folder in the order of their names; in a file of version 2,
a START of step N purges every point at or behind N that was read before it; a torn record ends a file."""

from __future__ import annotations

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

Points = dict[str, list[tuple[int, float]]]  # (step, value), in the order in which they were written


def shown(folder: Path) -> Points:
    points: Points = {}
    version = 0
    for path in sorted(folder.glob("*tfevents*")):
        for event in records(path.read_bytes()):
            if event.file_version:
                version = int(event.file_version.rpartition(":")[2])
            if version >= 2 and event.session_log.status == SessionLog.START:
                points = {tag: [point for point in found if point[0] < event.step] for tag, found in points.items()}
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def records(data: bytes) -> list[Event]:
    """A record: 8 bytes of length, 4 of its checksum, the message, 4 of the message's checksum."""
    found = []
    while len(data) >= 12:
        length = int.from_bytes(data[:8], "little")
        message, check = data[12 : 12 + length], data[12 + length : 16 + length]
        if len(check) < 4:
            break
        assert masked_crc32c(data[:8]) == int.from_bytes(data[8:12], "little")
        assert masked_crc32c(message) == int.from_bytes(check, "little")
        found.append(Event.FromString(message))
        data = data[16 + length :]
    return found


def steps(folder: Path) -> dict[str, list[int]]:
    return {tag: [step for step, _ in found] for tag, found in shown(folder).items()}
