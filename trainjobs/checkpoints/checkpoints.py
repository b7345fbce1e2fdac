"""Checkpoints as the trainer sees them. The protocol behind it is in log.py.

attempt = checkpoints.begin()                                   # rank 0
while commit := checkpoints.newest():                           # resume
    try: checkpoints.fetch(commit, [rank], folder); break
    except Corrupt as error: checkpoints.quarantine(commit, str(error))
...
digest = checkpoints.put_shard(prefix, rank, {name: path})       # every rank; the digests go to rank 0
checkpoints.commit(prefix, attempt=attempt, ...)                # rank 0
checkpoints.retain()
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.api.uris import file_path, file_uri
from trainjobs.checkpoints import retention, shard
from trainjobs.checkpoints.log import Log
from trainjobs.checkpoints.manifest import NAME, Corrupt, Manifest, RankManifest
from trainjobs.checkpoints.record import Commit, CommitStatus, finite
from trainjobs.stores.open import open_store
from trainjobs.stores.store import BlobStore, Missing, StoreError, create, digest

ADVICE = {
    "full": "free disk space, keep fewer checkpoints (checkpoints.keep.last), or set checkpoints.uri to another place",
    "denied": "grant that right, or set checkpoints.uri to another place",
    "credentials": "correct the credentials (on a cluster: the Secret that pod.env names, or the role of the pods' service account)",
    "no bucket": "make it, or correct checkpoints.uri",
    "region": "set AWS_DEFAULT_REGION to the bucket's region (on a cluster: pod.env)",
    "failed": "see that the place is mounted and reachable; what was committed before is intact",
}
URI = re.compile(r"(?P<root>.+?)(/(?P<prefix>steps/\d{12,}-a\d+))?/*")


def locate(uri: str) -> tuple[Checkpoints, Commit]:
    """The commit that a URI names, in whatever run's folder: a checkpoint's own URI, or a run's, meaning its newest. JobError GTJ0118."""
    match = URI.fullmatch(uri)
    found = Checkpoints(open_store(match["root"] if match else uri), keep=Keep())
    return found, found.resolve(uri)


class Checkpoints:
    """One run's checkpoints. `keep` is what `retain` keeps; what it drops, the first `retain` at least `grace` seconds later deletes.

    `now` gives seconds since the epoch; `pause` waits so many seconds before an unanswered request is repeated.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        keep: Keep,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        grace: float = 0.0,
    ) -> None:
        self._store, self._keep, self._now, self._pause, self._grace = store, keep, now, pause, grace
        self._log = Log(store, now=now, pause=pause)
        self._attempt = 0  # ours, when we began or committed one

    def probe(self) -> None:
        """See that the store can be written, listed and cleared, and honours "if absent". JobError GTJ0114 for a folder, else GTJ0112."""
        folder, code = f"probe-{secrets.token_hex(8)}", "GTJ0114" if self._store.uri.startswith("file:") else "GTJ0112"
        key, data = f"{folder}/object", secrets.token_bytes(16)
        try:
            ours = create(self._store, key, data, pause=self._pause) is None
            again = self._store.put_if_absent(key, b"second")
            held = ours and not again and self._store.get(key) == data
            listed = [entry.key for entry in self._store.entries(folder)] == [key]
            self._store.clear(folder)
            cleared = not self._store.entries(folder)
        except StoreError as error:
            raise JobError(code, "checkpoints cannot be written", where=self._store.uri, why=error.why, how=ADVICE[error.reason]) from error
        except Missing as error:
            why, how = f"what was written {error.why} a moment later", "set checkpoints.uri to another place"
            raise JobError(code, "checkpoints cannot be written", where=self._store.uri, why=why, how=how) from error
        if not held:
            why, how = "the same object could be created twice", "set checkpoints.uri to another place"
            raise JobError("GTJ0112", "the store ignores conditional writes", where=self._store.uri, why=why, how=how)
        if not (listed and cleared):
            why, how = "its listing does not show what was just written or deleted", "set checkpoints.uri to another place"
            raise JobError("GTJ0112", "the store is not consistent", where=self._store.uri, why=why, how=how)

    def begin(self) -> int:
        """Begin the next attempt, from 1: whoever commits for an older one is fenced from now on."""
        with self._writing("an attempt cannot begin"):
            self._attempt = self._log.fence()
        return self._attempt

    def join(self, attempt: int) -> None:
        """Write for an attempt that another process began."""
        self._attempt = attempt

    def prefix(self, step: int, attempt: int) -> str:
        return retention.prefix(step, attempt)

    def uri(self, commit: Commit) -> str:
        """What `locate` and `resumeFrom` take."""
        return f"{self._store.uri}/{commit.prefix}"

    def put_shard(self, prefix: str, rank: int, files: Mapping[str, Path]) -> str:
        """Upload a rank's files, by name; returns what rank 0 needs to commit them."""
        with self._writing("a checkpoint cannot be written"):
            return shard.put_shard(self._store, prefix, rank, files, pause=self._pause)

    def commit(
        self,
        prefix: str,
        *,
        attempt: int,
        step: int,
        samples: int,
        digests: Sequence[str],
        metadata: Mapping[str, Any],
        metrics: Mapping[str, float],
    ) -> Commit:
        """Make the uploaded shards a checkpoint; `digests` by rank. It exists for everybody when this returns, and after a power cut.

        Raises Fenced; JobError GTJ0211 with nothing lost of what was committed before; ValueError for a step not above the attempt's last
        one (to go back, begin another attempt). After an error the call may be repeated. Metrics that are not finite are left out.
        """
        self._attempt = attempt
        with self._writing("a checkpoint cannot be written"):
            try:
                ranks = [(shard.read_rank(self._store, prefix, rank, told), told) for rank, told in enumerate(digests)]
                manifest = Manifest(step, samples, attempt, tuple(ranks), finite(metrics), dict(metadata))
                self._check_closure(prefix, manifest)
            except Corrupt as error:
                self._hear_of_fences()
                how = "let all workers see the same checkpoints.uri"
                raise JobError("GTJ0211", "a rank's shard is not what it said", where=error.file, why=error.why, how=how) from error
            data = manifest.encode()
            if create(self._store, f"{prefix}/{NAME}", data, pause=self._pause) is not None:
                raise ValueError(f"{prefix}/{NAME} exists already with other contents")
            body = {  # (5)
                "step": step,
                "samples": samples,
                "prefix": prefix,
                "manifest": digest(data),
                "size": manifest.size,
                "world": len(digests),
                "metrics": dict(manifest.metrics),
                "metadata": dict(metadata),
            }
            return self._log.commit(attempt, body)  # (7)

    def newest(self) -> Commit | None:
        """The last commit that is neither deleted nor quarantined. Not verified: `fetch` does that while it reads."""
        with self._reading():
            self._log.refresh()
            return self._log.newest()

    def fetch(self, commit: Commit, ranks: Iterable[int], destination: Path) -> None:
        """Lay the files of `ranks` in destination/rank-<r>/, each folder whole or not at all. Raises Corrupt."""
        with self._reading():
            manifests = shard.read_ranks(self._store, commit)
            for rank in ranks:
                target = destination / f"rank-{rank}"
                try:
                    shard.fetch_rank(self._store, commit.prefix, manifests[rank], target)
                except OSError as error:
                    why, how = error.strerror or str(error), "free disk space there, or make it writable"
                    raise JobError("GTJ0114", "a checkpoint cannot be copied here", where=str(target), why=why, how=how) from error

    def read(self, commit: Commit, rank: int, name: str) -> bytes:
        """A small file of a rank, verified. Raises Corrupt."""
        with self._reading():
            told = shard.read_digests(self._store, commit)[rank]
            return shard.read_file(self._store, commit.prefix, shard.read_rank(self._store, commit.prefix, rank, told), name)

    def ranks(self, commit: Commit) -> list[RankManifest]:
        """What each rank's files are. Raises Corrupt."""
        with self._reading():
            return shard.read_ranks(self._store, commit)

    def stream(self, commit: Commit, rank: RankManifest, name: str, write: Callable[[bytes], object]) -> None:
        """Pass a file of a rank on, block by block. Raises Corrupt, which is known only after the last block."""
        with self._reading():
            shard.stream_file(self._store, commit.prefix, rank, name, write)

    def verify(self, commit: Commit) -> None:
        """Read all of a checkpoint. Raises Corrupt."""
        with self._reading():
            for manifest in shard.read_ranks(self._store, commit):
                for file in manifest.files:
                    shard.check_file(self._store, commit.prefix, manifest.rank, file)

    def quarantine(self, commit: Commit, why: str) -> None:
        """Take a corrupt commit out of use, for everybody and for ever."""
        with self._writing("a corrupt checkpoint cannot be marked"):
            self._log.refresh()
            self._log.quarantine(commit, why)

    def retain(self) -> list[Commit]:
        """Drop what `keep` does not ask for, and what died on the way to its commit. Returns what was deleted now.

        Raises Fenced when a newer attempt has begun: that one may be resuming from what we would drop.
        """
        with self._writing("old checkpoints cannot be deleted"):
            self._log.refresh()
            self._log.tombstone(self._attempt, lambda statuses: retention.doomed(statuses, self._keep))  # (8)
            statuses, folders = self._log.statuses(), self._store.folders(retention.FOLDER)
            gone = retention.garbage(folders, list(self._log.backwards()), statuses, self._now() - self._grace)
            for folder in gone:  # (9)
                self._store.clear(folder)
            return [status.commit for status in statuses if status.commit.prefix in gone]

    def commits(self) -> list[CommitStatus]:
        """Every commit there ever was, oldest first, and what became of it."""
        with self._reading():
            self._log.refresh()
            return self._log.statuses()

    def unreadable(self, after: Commit | None = None) -> list[str]:
        """The log's damaged records, as keys, of those behind a commit or of all. Each may have been a commit."""
        with self._reading():
            self._log.refresh()
            return self._log.unreadable(after.seq if after else 0)

    def resolve(self, uri_or_step: str | int) -> Commit:
        """The live commit of a step (the newest, if several attempts came by), or of a URI in this store. JobError GTJ0118."""
        wanted = str(uri_or_step).rstrip("/")
        if wanted.startswith("file:"):
            wanted = file_uri(file_path(wanted))  # however it is escaped
        statuses = self.commits()
        if wanted == self._store.uri.rstrip("/"):
            chosen = statuses
        elif wanted.isdigit():
            chosen = [status for status in statuses if status.commit.step == int(wanted)]
        else:
            chosen = [status for status in statuses if self.uri(status.commit) == wanted]
        live = [status.commit for status in statuses if status.state == "live"]
        for status in reversed(chosen):
            if status.state == "live":
                return status.commit
        why = f"it is {chosen[-1].state}" if chosen else "there is no such commit"
        how = f"there are steps {', '.join(str(commit.step) for commit in live[-5:])}" if live else "there are none"
        raise JobError("GTJ0118", "checkpoint not found", where=wanted, why=why, how=how)

    def _check_closure(self, prefix: str, manifest: Manifest) -> None:
        """See that every file is where the manifests say. Raises Corrupt."""
        sizes = {entry.key: entry.size for entry in self._store.entries(prefix)}
        for rank, _ in manifest.ranks:
            for file in rank.files:
                key = f"{prefix}/rank-{rank.rank}/{file.name}"
                if sizes.get(key) != file.size:
                    raise Corrupt(key, f"has {sizes[key]} bytes, not {file.size}" if key in sizes else "is missing")

    def _hear_of_fences(self) -> None:
        """Raises Fenced when a newer attempt has begun: its retention sweeps away what we can no longer commit, under our hands."""
        self._log.refresh()
        self._log.check_fences(self._attempt)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if self._attempt and error.reason == "failed":
                with suppress(StoreError):
                    self._hear_of_fences()
            where = f"{self._store.uri}/{error.key}"
            raise JobError("GTJ0211", what, where=where, why=error.why, how=ADVICE[error.reason]) from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            where = f"{self._store.uri}/{error.key}"
            raise JobError("GTJ0112", "checkpoints cannot be read", where=where, why=error.why, how=ADVICE[error.reason]) from error
