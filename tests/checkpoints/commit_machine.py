"""Two processes on one store, any order, any faults: Hypothesis looks for a sequence that breaks what second_reader.check states.

In memory the check runs after every single change of the store, so every state that a reader could ever meet is looked at; on a server
after every action. Beyond it: a commit that was reported stays, what is read back is what was saved, and whatever happened, a new attempt
can go on and clean up.

A `Place` is where it happens: MemoryPlace here, with faults at the store's operations; a bucket's requests in tests/stores/places.py.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from faulty_store import FAULTS, Client, Crash, MemoryStore
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from second_reader import View, check

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, Corrupt, Fenced, files_below

KEEP = Keep(last=2, every_steps=10)
WRITERS = ("one", "two")
LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
Look = Callable[[Mapping[str, bytes]], None]


class Faulty(Protocol):
    """A process's way to the store. It counts its requests from 0; `faults` says what happens at which, `other` is the other's turn."""

    count: int
    dead: bool
    faults: Any
    other: Callable[[], None] | None


class Place(Protocol):
    kinds: Sequence[Any]  # of faults
    least: int  # faults drawn for an action; one that is drawn for a request which is not made does not happen
    requests: st.SearchStrategy[Any]  # that faults are drawn for

    def connect(self) -> tuple[Faulty, Any]:
        """A new process's way to the store, and the BlobStore on it."""

    def objects(self) -> dict[str, bytes]: ...

    def spoil(self, key: str, data: bytes) -> None: ...

    def settle(self) -> None:
        """Forget requests that are still to arrive."""


class MemoryPlace:
    kinds, least, requests = FAULTS, 0, st.integers(0, 30)

    def __init__(self, look: Look) -> None:
        self.store = MemoryStore(look)

    def connect(self) -> tuple[Faulty, Any]:
        client = Client(self.store)
        return client, client

    def objects(self) -> dict[str, bytes]:
        return self.store.objects

    def spoil(self, key: str, data: bytes) -> None:
        self.store.objects[key] = data

    def settle(self) -> None:
        self.store.late.clear()


def files(stage: int, rank: int, prefix: str) -> dict[str, bytes]:
    """What a rank lays down, by ZeRO stage: the model on rank 0 up to stage 2, everybody's share of it at 3; of the optimizer from 1 on."""
    found = {"state": f"{prefix} {rank}".encode()}
    if rank == 0 or stage == 3:
        found["g/model.pt"] = f"model {prefix} {rank} ".encode() * 4
    if rank == 0 or stage >= 1:
        found["g/optimizer.pt"] = f"optimizer {prefix} {rank} ".encode() * 8
    return found


class Writer:
    """A process: its facade, its attempt and the step it has reached."""

    def __init__(self, machine: CommitMachine) -> None:
        self.client, store = machine.place.connect()
        self.checkpoints = Checkpoints(store, keep=KEEP, now=lambda: 0.0, pause=lambda seconds: None)
        self.attempt, self.step = 0, 0


class CommitMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.damaged: set[str] = set()
        self.sound: dict[str, bytes] = {}  # what damaged objects were
        self.saved: dict[str, dict[int, dict[str, bytes]]] = {}  # by prefix and rank
        self.reported: set[str] = set()
        self.view = View()
        self.place = self.make_place()
        self.writers: dict[str, Writer | None] = dict.fromkeys(WRITERS)

    def make_place(self) -> Place:
        return MemoryPlace(self.look)

    def refresh(self) -> None:
        """Look now, where changes do not say so themselves."""

    def look(self, objects: Mapping[str, bytes]) -> None:
        before = {record["body"]["prefix"] for record in self.view.commits.values()}
        self.view = check(objects, damaged=self.damaged, keep_last=2)
        assert before <= {record["body"]["prefix"] for record in self.view.commits.values()}

    @rule(name=st.sampled_from(WRITERS), data=st.data())
    def start(self, name: str, data: st.DataObject) -> None:
        self.act(name, self.begin, data)

    @rule(name=st.sampled_from(WRITERS), data=st.data(), ahead=st.integers(1, 6), world=st.integers(1, 2), stage=st.integers(0, 3))
    def save(self, name: str, data: st.DataObject, ahead: int, world: int, stage: int) -> None:
        ready = self.writers[name] is not None
        self.act(name, (lambda name: self.write(name, ahead, world, stage)) if ready else self.begin, data)

    @rule(name=st.sampled_from(WRITERS), data=st.data())
    def retain(self, name: str, data: st.DataObject) -> None:
        if self.writers[name] is not None:
            self.act(name, self.drop, data)

    @precondition(lambda self: self.view.live)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        prefix = data.draw(st.sampled_from(self.view.prefixes))
        objects = self.place.objects()
        key = data.draw(st.sampled_from(sorted(key for key in objects if key.startswith(f"{prefix}/"))))
        # From what was written, not from what is there: the same byte changed twice would be sound again.
        spoilt = bytearray(self.sound.setdefault(key, objects[key]))
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] ^= data.draw(st.integers(1, 255))
        self.damaged.add(prefix)
        self.place.spoil(key, bytes(spoilt))

    @rule()
    def resume(self) -> None:
        """A reader takes the newest commit that is whole, and gets what was saved."""
        reader = Writer(self).checkpoints
        before = self.whole()
        while commit := reader.newest():
            try:
                reader.fetch(commit, range(commit.world), self.folder / "back")
            except Corrupt as error:
                assert commit.prefix in self.damaged
                reader.quarantine(commit, str(error))
                continue
            assert [commit.prefix] in (before[-1:], self.whole()[-1:])  # a late request may arrive while the reader looks
            for rank, state in self.saved[commit.prefix].items():
                for file, content in state.items():
                    assert (self.folder / "back" / f"rank-{rank}" / file).read_bytes() == content
            return
        assert not before

    def whole(self) -> list[str]:
        """The commits that are not damaged, oldest first."""
        self.refresh()
        return [prefix for prefix in self.view.prefixes if prefix not in self.damaged]

    def act(self, name: str, action: Any, data: st.DataObject) -> None:
        """One action of one process, under faults; at the fault "other" the other process acts without any."""
        other = next(other for other in WRITERS if other != name)
        if self.writers[name] is None or action == self.begin:
            self.writers[name] = Writer(self)
        client = self.writers[name].client
        turns = iter([self.begin, lambda other: self.write(other, 1, 1, 2), self.drop])
        client.other = lambda: self.guarded(other, next(turns, self.drop))
        faults = st.dictionaries(self.place.requests, st.sampled_from(self.place.kinds), min_size=self.place.least, max_size=3)
        client.count, client.faults = 0, data.draw(faults)
        self.guarded(name, action)
        client.faults = {}  # those that met no request: when the other acts and this one gets a turn in between, it has none

    def guarded(self, name: str, action: Any) -> None:
        writer = self.writers[name]
        if writer is None:
            writer = self.writers[name] = Writer(self)
            action = self.begin
        try:
            action(name)
        except Crash:
            self.writers[name] = None
        except Fenced:
            self.refresh()
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
        self.refresh()
        before = self.view.attempt
        writer.attempt = writer.checkpoints.begin()
        assert writer.attempt > before
        writer.step = max(self.view.steps[-1:] or [0])

    def write(self, name: str, ahead: int, world: int, stage: int) -> None:
        writer = self.writers[name]
        writer.step += ahead
        prefix = writer.checkpoints.prefix(writer.step, writer.attempt)
        states = {rank: files(stage, rank, prefix) for rank in range(world)}
        self.saved[prefix] = states
        digests = []
        for rank, state in states.items():
            source = self.folder / name / str(rank)
            shutil.rmtree(source, ignore_errors=True)
            for file, content in state.items():
                (source / file).parent.mkdir(parents=True, exist_ok=True)
                (source / file).write_bytes(content)
            digests.append(writer.checkpoints.put_shard(prefix, rank, files_below(source)))
        commit = writer.checkpoints.commit(
            prefix, attempt=writer.attempt, step=writer.step, samples=writer.step, digests=digests, metadata={"stage": stage}, metrics={}
        )
        self.refresh()
        assert self.view.commits[commit.seq]["body"]["prefix"] == prefix

    def drop(self, name: str) -> None:
        self.refresh()
        tens = {prefix for prefix in self.view.prefixes if int(prefix[6:18]) % 10 == 0}
        newest = self.view.steps[-2:]
        self.writers[name].checkpoints.retain()
        self.refresh()
        live = set(self.view.prefixes)
        assert {prefix[6:18] for prefix in tens} <= {prefix[6:18] for prefix in live} or self.damaged
        assert not newest or live

    def teardown(self) -> None:
        """Whatever happened, a new attempt goes on and leaves exactly what is in use."""
        self.place.settle()
        self.resume()
        writer = self.writers["one"] = Writer(self)
        self.begin("one")
        self.write("one", 1, 2, 3)
        self.drop("one")
        assert self.view.prefixes[-1] == writer.checkpoints.prefix(writer.step, writer.attempt)
        left = {"/".join(key.split("/")[:2]) for key in self.place.objects() if key.startswith("steps/")}
        corrupt = {self.view.commits[seq]["body"]["prefix"] for seq in self.view.corrupt}
        assert set(self.view.prefixes) <= left <= set(self.view.prefixes) | corrupt
        self.temporary.cleanup()
