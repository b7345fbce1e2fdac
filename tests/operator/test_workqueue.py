"""The work queue against a model of what must hold, and its delays in made-up time."""

from __future__ import annotations

import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gentrain_operator.kube.workqueue import WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


KEYS = st.sampled_from("abc")


class QueueMachine(RuleBasedStateMachine):
    """Three keys, any number of workers. `wanted` holds what was added and not yet handed out since."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue: WorkQueue[str] = WorkQueue(clock=self.clock)
        self.wanted: set[str] = set()
        self.due: dict[str, float] = {}
        self.working: set[str] = set()

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.wanted.add(key)

    @rule(key=KEYS, seconds=st.integers(1, 5))
    def add_after(self, key: str, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        self.due[key] = min(self.due.get(key, 1e9), self.clock.now + seconds)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def take(self) -> None:
        self.wanted |= {key for key, due in self.due.items() if due <= self.clock.now}
        self.due = {key: due for key, due in self.due.items() if due > self.clock.now}
        key = self.queue.take()
        if key is None:
            assert not self.wanted - self.working, "a wanted key was not handed out"
        else:
            assert key not in self.working, "two workers on one key"
            assert key in self.wanted, "a key nobody asked for"
            self.wanted.discard(key)
            self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(key)
        self.queue.done(key)

    @invariant()
    def depth(self) -> None:
        assert len(self.queue) <= 3


QueueMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_queue_machine = QueueMachine.TestCase


def test_backoff_doubles_to_its_limit_and_starts_over() -> None:
    queue: WorkQueue[str] = WorkQueue(clock=Clock(), base=1, limit=5)
    assert [queue.add_failed("a") for _ in range(5)] == [1, 2, 4, 5, 5]
    assert queue.add_failed("b") == 1
    queue.forget("a")
    assert queue.add_failed("a") == 1


def test_what_the_server_asks_for_counts() -> None:
    assert WorkQueue[str](clock=Clock()).add_failed("a", at_least=7) == 7
    assert WorkQueue[str](clock=Clock(), limit=300).add_failed("a", at_least=10**6) == 300


def test_the_earliest_delay_counts() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    queue.add_after("a", 10)
    queue.add_after("a", 2)
    queue.add_after("a", 20)
    clock.now = 2
    assert queue.take() == "a"
    queue.done("a")
    clock.now = 100
    assert queue.take() is None


def test_ages() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    queue.add("a")
    clock.now = 3
    queue.add("b")
    assert queue.age() == 3
    queue.take()
    clock.now = 8
    assert (queue.age(), queue.longest_work()) == (5, 5)


def test_closing_wakes_who_waits() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.close()
    thread.join(5)
    assert got == [None]


def test_who_waits_gets_a_key_when_it_is_due() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.add_after("late", 60)
    queue.add_after("soon", 0.01)
    thread.join(5)
    assert got == ["soon"]
