"""What the driver of a run writes down and the user is told at once, each thing once: what its data are, and warnings."""

from __future__ import annotations

from trainjobs.cli.screen import Screen
from trainjobs.run.folder import Run, objects

SAID = {
    **dict.fromkeys(("warning", "rolled back", "dataChanged"), "warning"),
    **dict.fromkeys(("note", "changed"), "note"),
}  # events that are said, and how


class Found:
    """What the driver found the data to be, once, and again when it changes: what was scaled or left out shall not be told to nobody."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._said: object = run.progress().get("data")  # by an earlier attempt

    def say(self, screen: Screen) -> None:
        data = self._run.progress().get("data")
        if data and data != self._said:
            self._said = data
            screen.say(f"data: {data}")


class Warnings:
    """What is added to a run's timeline as a warning, or a note, from now on; each is said once."""

    def __init__(self, run: Run) -> None:
        self._path = run.path / "attempts.jsonl"
        self._state: tuple[int, int, int] | None = None  # of the file, when it was read
        self._known: set[str] = set()
        self._known = set(self._added())

    def say(self, screen: Screen) -> None:
        for line in self._added():
            self._known.add(line)
            for row in objects(line):
                if row.get("event") in SAID:
                    screen.say(f"{SAID[row['event']]}: {row.get('message', '')}")

    def _added(self) -> list[str]:
        """Whole lines that are new. The file is not only added to: a run that goes back takes rows out."""
        try:
            found = self._path.stat()
            state = found.st_ino, found.st_size, found.st_mtime_ns
            if state == self._state:
                return []
            text = self._path.read_bytes().decode("utf-8", errors="replace")
        except OSError:
            return []
        self._state = state
        return [line for line in text[: text.rfind("\n") + 1].splitlines() if line not in self._known]
