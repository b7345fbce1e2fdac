"""Two processes on one store, any order, any faults: Hypothesis looks for a sequence that breaks what second_reader.check states.

The check runs after every single change of the store, so every state that a reader could ever meet is looked at. Beyond it:
a commit that was reported stays, what is read back is what was saved, and whatever happened, a new attempt can go on and clean up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from faulty_store import FAULTS, Client, Crash, Fault, MemoryStore
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from second_reader import View, check

from trainjobs.api.errors import JobError
from trainjobs.api.job import Keep
from trainjobs.checkpoints import Checkpoints, Corrupt, Fenced

KEEP = Keep(last=2, every_steps=10)
WRITERS = ("one", "two")
faults = st.dictionaries(st.integers(0, 30), st.sampled_from(FAULTS), max_size=3)


class Writer:
    """A process: its facade, its attempt and the step it has reached."""

    def __init__(self, machine: CommitMachine) -> None:
        self.client = Client(machine.store)
        self.checkpoints = Checkpoints(self.client, keep=KEEP, now=lambda: 0.0, pause=lambda seconds: None)
        self.attempt, self.step = 0, 0


class CommitMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.damaged: set[str] = set()
        self.saved: dict[str, dict[int, bytes]] = {}  # by prefix and rank
        self.reported: set[str] = set()
        self.view = View()
        self.store = MemoryStore(self.look)
        self.writers: dict[str, Writer | None] = dict.fromkeys(WRITERS)

    def look(self, objects: Mapping[str, bytes]) -> None:
        before = {record["body"]["prefix"] for record in self.view.commits.values()}
        self.view = check(objects, damaged=self.damaged, keep_last=2)
        assert before <= {record["body"]["prefix"] for record in self.view.commits.values()}

    @rule(name=st.sampled_from(WRITERS), faults=faults)
    def start(self, name: str, faults: dict[int, Fault]) -> None:
        self.act(name, self.begin, faults)

    @rule(name=st.sampled_from(WRITERS), faults=faults, ahead=st.integers(1, 6), world=st.integers(1, 2))
    def save(self, name: str, faults: dict[int, Fault], ahead: int, world: int) -> None:
        if self.writers[name] is not None:
            self.act(name, lambda name: self.write(name, ahead, world), faults)

    @rule(name=st.sampled_from(WRITERS), faults=faults)
    def retain(self, name: str, faults: dict[int, Fault]) -> None:
        if self.writers[name] is not None:
            self.act(name, self.drop, faults)

    @precondition(lambda self: self.view.live)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        prefix = data.draw(st.sampled_from(self.view.prefixes))
        key = data.draw(st.sampled_from(sorted(key for key in self.store.objects if key.startswith(f"{prefix}/"))))
        spoilt = bytearray(self.store.objects[key])
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] ^= data.draw(st.integers(1, 255))
        self.damaged.add(prefix)
        self.store.objects[key] = bytes(spoilt)

    @rule()
    def resume(self) -> None:
        """A reader takes the newest commit that is whole, and gets what was saved."""
        reader = Writer(self).checkpoints
        expected = [prefix for prefix in self.view.prefixes if prefix not in self.damaged]
        while commit := reader.newest():
            try:
                reader.fetch(commit, range(commit.world), self.folder / "back")
            except Corrupt as error:
                assert commit.prefix in self.damaged
                reader.quarantine(commit, str(error))
                continue
            assert commit.prefix == expected[-1]
            for rank, state in self.saved[commit.prefix].items():
                assert (self.folder / "back" / f"rank-{rank}" / "state").read_bytes() == state
            return
        assert not expected

    def act(self, name: str, action, faults: dict[int, Fault]) -> None:
        """One action of one process, under faults; at the fault "other" the other process acts without any."""
        other = next(other for other in WRITERS if other != name)
        if self.writers[name] is None or action == self.begin:
            self.writers[name] = Writer(self)
        client = self.writers[name].client
        turns = iter([self.begin, lambda other: self.write(other, 1, 1), self.drop])
        client.other = lambda: self.guarded(other, next(turns, self.drop))
        client.count, client.faults = 0, faults
        self.guarded(name, action)

    def guarded(self, name: str, action) -> None:
        writer = self.writers[name]
        if writer is None:
            writer = self.writers[name] = Writer(self)
            action = self.begin
        try:
            action(name)
        except Crash:
            self.writers[name] = None
        except Fenced:
            assert self.view.attempt > writer.attempt
            self.writers[name] = None
        except JobError as error:
            if error.code != "GTJ0211":
                raise
            if not writer.attempt:
                self.writers[name] = None
        if writer.client.dead:
            self.writers[name] = None

    def begin(self, name: str) -> None:
        writer = self.writers[name]
        before = self.view.attempt
        writer.attempt = writer.checkpoints.begin()
        assert writer.attempt > before
        writer.step = max(self.view.steps[-1:] or [0])

    def write(self, name: str, ahead: int, world: int) -> None:
        writer = self.writers[name]
        writer.step += ahead
        prefix = writer.checkpoints.prefix(writer.step, writer.attempt)
        states = {rank: f"{prefix} {rank}".encode() for rank in range(world)}
        self.saved[prefix] = states
        digests = []
        for rank, state in states.items():
            source = self.folder / name / str(rank)
            source.mkdir(parents=True, exist_ok=True)
            (source / "state").write_bytes(state)
            digests.append(writer.checkpoints.put_shard(prefix, rank, source))
        commit = writer.checkpoints.commit(
            prefix, attempt=writer.attempt, step=writer.step, samples=writer.step, digests=digests, metadata={"n": name}, metrics={}
        )
        assert self.view.commits[commit.seq]["body"]["prefix"] == prefix

    def drop(self, name: str) -> None:
        tens = {prefix for prefix in self.view.prefixes if int(prefix[6:18]) % 10 == 0}
        newest = self.view.steps[-2:]
        self.writers[name].checkpoints.retain()
        live = set(self.view.prefixes)
        assert {prefix[6:18] for prefix in tens} <= {prefix[6:18] for prefix in live} or self.damaged
        assert not newest or live

    def teardown(self) -> None:
        """Whatever happened, a new attempt goes on and leaves exactly what is in use."""
        self.store.late.clear()
        self.resume()
        writer = self.writers["one"] = Writer(self)
        self.begin("one")
        self.write("one", 1, 2)
        self.drop("one")
        assert self.view.prefixes[-1] == writer.checkpoints.prefix(writer.step, writer.attempt)
        left = {"/".join(key.split("/")[:2]) for key in self.store.objects if key.startswith("steps/")}
        corrupt = {self.view.commits[seq]["body"]["prefix"] for seq in self.view.corrupt}
        assert set(self.view.prefixes) <= left <= set(self.view.prefixes) | corrupt
        self.temporary.cleanup()


LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


class TestCommits(CommitMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=12, deadline=None, suppress_health_check=LENIENT, derandomize=True)


@pytest.mark.slow
class TestCommitsLong(CommitMachine.TestCase):
    settings = settings(max_examples=1500, stateful_step_count=40, deadline=None, suppress_health_check=LENIENT)
