"""Where progress is shown: one live line on a terminal, one plain line every ten seconds anywhere else. Both on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from trainjobs.cli.line import live, plain

INTERVAL = 10.0
SILENCE = 60.0  # what has not changed for so long is said again: it is still going on


class Screen(Protocol):
    def show(self, progress: Mapping[str, Any], now: float) -> None:
        """Brings the progress up to date; called several times a second."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """Takes the live line away."""


class Plain:
    """For pipes, files and continuous integration: at most one line in ten seconds, and one in a minute while nothing changes."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self.stream = stream
        self.began: float | None = None
        self.due, self.said = 0.0, 0.0
        self.last = ""

    def show(self, progress: Mapping[str, Any], now: float) -> None:
        if self.began is None:
            self.began, self.due = now, now + INTERVAL
        if now < self.due:
            return
        self.due = now + INTERVAL
        line = plain(self.name, progress, elapsed=now - self.began)
        if line != self.last or now - self.said >= SILENCE:
            self.last, self.said = line, now
            self.say(line)

    def say(self, text: str) -> None:
        # The reader may be gone (a closed pipe, a closed terminal); training goes on.
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        return


class Live:
    """One line, redrawn in place, never wider than the terminal: a wrapped line cannot be redrawn."""

    def __init__(self, name: str, stream: TextIO) -> None:
        # 60 ms of imports, and only a terminal needs them.
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.text import Text

        self.name = name
        self.console = Console(file=stream, highlight=False)
        self.text: Callable[..., Text] = Text
        self.live = RichLive(console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        self.ascii_only = not (getattr(stream, "encoding", "") or "").lower().startswith("utf")
        self.began: float | None = None
        self.tick = 0
        self.live.start()

    def show(self, progress: Mapping[str, Any], now: float) -> None:
        if self.began is None:
            self.began = now
        self.tick += 1
        # One column stays free: some terminals wrap when the last one is written.
        line = live(self.name, progress, width=self.console.width - 1, tick=self.tick, elapsed=now - self.began, ascii_only=self.ascii_only)
        with contextlib.suppress(OSError, ValueError):
            self.live.update(self.text(line, no_wrap=True, overflow="crop", end=""), refresh=True)

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.live.stop()


def screen(name: str, stream: TextIO | None = None) -> Screen:
    """Live on a terminal that can move its cursor, plain otherwise."""
    import os

    stream = stream or sys.stderr
    capable = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    return Live(name, stream) if capable else Plain(name, stream)
