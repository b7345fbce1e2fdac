"""A reader of checkpoints written from docs/concepts/checkpoint-format.md alone: it shares no line with the writer, and imports none.

`check` takes all objects of a store at one moment and asserts what must hold at every moment:

1. the log has no gaps, and its records are what they were when they were made;
2. fences count up, and no attempt commits after a newer one's fence, or without a fence of its own;
3. within an attempt the steps go up;
4. a record takes out of use only commits that come before it, and a tombstone none of the last `keep_last` live ones;
5. all that a live commit refers to is there and has the digests it had, unless the test itself damaged it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3


@dataclass
class View:
    """`commits`: all, by number. `live`: the numbers in use, ascending. `corrupt`: quarantined and not deleted."""

    commits: dict[int, dict[str, Any]] = field(default_factory=dict)
    live: list[int] = field(default_factory=list)
    corrupt: set[int] = field(default_factory=set)
    attempt: int = 0

    @property
    def steps(self) -> list[int]:
        return [self.commits[seq]["body"]["step"] for seq in self.live]

    @property
    def prefixes(self) -> list[str]:
        return [self.commits[seq]["body"]["prefix"] for seq in self.live]


def load(root: Path) -> dict[str, bytes]:
    """All objects in a folder."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.name.startswith(".tmp-"):
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def check(objects: Mapping[str, bytes], *, damaged: Collection[str] = (), keep_last: int = 1) -> View:
    """`damaged`: prefixes of commits whose files the test has spoilt."""
    keys = sorted(key for key in objects if key.startswith("log/"))
    assert keys == [f"log/{seq:016d}.json" for seq in range(1, len(keys) + 1)], "the log has gaps or strangers"
    view = View()
    reached: dict[int, int] = {}
    for seq, key in enumerate(keys, start=1):
        record = json.loads(objects[key])
        claimed = record.pop("sum")
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        assert claimed == "sha256:" + hashlib.sha256(text.encode()).hexdigest(), f"{key} is not what it was"
        assert record["seq"] == seq
        attempt, body = record["attempt"], record["body"]
        if record["kind"] == "fence":
            assert attempt > view.attempt, f"fence {attempt} after fence {view.attempt}"
            view.attempt = attempt
        elif record["kind"] == "commit":
            assert attempt == view.attempt, f"commit of attempt {attempt} after fence {view.attempt}"
            assert body["step"] > reached.get(attempt, -1), f"step {body['step']} after {reached.get(attempt)} in attempt {attempt}"
            reached[attempt] = body["step"]
            view.commits[seq] = record
            view.live.append(seq)
        elif record["kind"] == "tombstone":
            assert set(body["commits"]) <= set(view.live) | view.corrupt, f"{key} deletes what is not there"
            assert not set(body["commits"]) & set(view.live[-keep_last:]), f"{key} deletes one of the last {keep_last}"
            view.live = [number for number in view.live if number not in body["commits"]]
            view.corrupt -= set(body["commits"])
        else:
            assert record["kind"] == "quarantine"
            assert set(body["commits"]) <= set(view.live)
            view.live = [number for number in view.live if number not in body["commits"]]
            view.corrupt |= set(body["commits"])
    for seq in view.live:
        if view.commits[seq]["body"]["prefix"] not in damaged:
            contents(objects, view.commits[seq]["body"])
    return view


def contents(objects: Mapping[str, bytes], body: Mapping[str, Any]) -> dict[tuple[int, str], bytes]:
    """The files of a commit by rank and name; asserts that all is there and verifies."""
    prefix = body["prefix"]
    manifest = _verified(objects, f"{prefix}/MANIFEST.json", body["manifest"])
    assert (manifest["step"], manifest["samples"], manifest["metadata"]) == (body["step"], body["samples"], body["metadata"])
    assert len(manifest["ranks"]) == manifest["world"] == body["world"]
    found = {}
    for rank, entry in enumerate(manifest["ranks"]):
        shard = _verified(objects, f"{prefix}/rank-{rank}.json", entry["digest"])
        for file in shard["files"]:
            key = f"{prefix}/rank-{rank}/{file['name']}"
            assert key in objects, f"{key} is missing"
            assert len(objects[key]) == file["size"], f"{key} is truncated"
            assert "blake3:" + blake3(objects[key]).hexdigest() == file["digest"], f"{key} has other bytes"
            found[rank, file["name"]] = objects[key]
    assert sum(map(len, found.values())) == body["size"] == manifest["size"]
    return found


def _verified(objects: Mapping[str, bytes], key: str, claimed: str) -> dict[str, Any]:
    assert key in objects, f"{key} is missing"
    assert "sha256:" + hashlib.sha256(objects[key]).hexdigest() == claimed, f"{key} has other bytes"
    found = json.loads(objects[key])
    assert isinstance(found, dict)
    return found
