"""What is computed beside training: figures of an evaluation that all ranks would otherwise stand still for. On rank 0, in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Thread

Figures = Mapping[str, float]
AGAIN = 0.5  # seconds between two signs of life


@dataclass(eq=False)
class _Task:
    step: int
    compute: Callable[[], Figures]
    found: Figures | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        # A daemon: a run that ends because of something else does not wait for it.
        self.thread = Thread(target=self._run, name="figures", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.found = self.compute()
        except Exception as error:  # raised to whoever asks for the figures
            self.error = error


class Later:
    """One at a time: who has the next one computed waits for the one before, so no more than that is ever behind."""

    def __init__(self) -> None:
        self.last: Figures = {}  # what was computed last, whoever it was handed out to
        self._task: _Task | None = None
        self._over: list[tuple[int, Figures]] = []

    def begin(self, step: int, compute: Callable[[], Figures]) -> None:
        """Have the figures of that step computed. Returns when those before are, and at once without any."""
        self._over = self.all()
        self._task = _Task(step, compute)

    def ready(self) -> list[tuple[int, Figures]]:
        """What is there by now and was not handed out before, by step."""
        if self._task is not None and not self._task.thread.is_alive():
            self._end()
        over, self._over = self._over, []
        return over

    def all(self, tell: Callable[[], None] = lambda: None) -> list[tuple[int, Figures]]:
        """The same of everything that was begun; `tell` is called now and then while it is waited for."""
        while self._task is not None and self._task.thread.is_alive():
            self._task.thread.join(AGAIN)
            tell()
        return self.ready()

    def again(self, over: list[tuple[int, Figures]]) -> None:
        """To be handed out to somebody else."""
        self._over += over

    def forget(self) -> None:
        """What was begun is of a future that did not happen."""
        self._task, self._over, self.last = None, [], {}

    def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None and task.error is not None:
            raise task.error
        if task is not None and task.found is not None:
            self._over.append((task.step, task.found))
            self.last = task.found
