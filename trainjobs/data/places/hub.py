"""Datasets of the Hugging Face hub: hf://datasets/<org>/<name>[/<configuration>][@<revision>], and models: hf://<org>/<name>[@<revision>].

A revision (a branch, a tag; main, where none is named) is asked for once and becomes a commit, which stands in the place's URI: what is
read from then on can no more change, and needs no asking again. With HF_HUB_OFFLINE the snapshot in the hub's own cache (HF_HOME) is read;
otherwise files that the cache holds are taken from it, and nothing is written to it. No git, and no git-lfs.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import quote

from trainjobs.api.errors import JobError
from trainjobs.data.places.configurations import Chosen, choose
from trainjobs.data.places.hub_requests import CutShort, Hub
from trainjobs.data.places.place import Listed, Object
from trainjobs.stores.objects import Patience

COMMIT = re.compile("[0-9a-f]{40}")
_SHAPE = re.compile(r"hf://datasets/(?P<repo>[^/@]+(/[^/@]+)?)(/(?P<configuration>[^@]+?))?/?(@(?P<revision>.+))?")
_TAG = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")  # a blob of git, or the SHA-256 of what git-lfs or Xet holds
CARD = "README.md"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Dataset:
    """`configuration` and `revision` are empty where none is named. A model's repository is one too, of another kind."""

    repo: str
    configuration: str = ""
    revision: str = ""
    kind: Literal["dataset", "model"] = "dataset"

    @property
    def page(self) -> str:
        """Where the hub has it: "datasets/jane/faces"; of a model its name alone."""
        return f"datasets/{self.repo}" if self.kind == "dataset" else self.repo

    @property
    def api(self) -> str:
        return f"/api/{self.kind}s/{self.repo}"

    @property
    def uri(self) -> str:
        configuration = f"/{self.configuration}" if self.configuration else ""
        return f"hf://{self.page}{configuration}{f'@{self.revision}' if self.revision else ''}"


@dataclass(frozen=True)
class HubPlace:
    """`dataset.revision` is a commit. `cached` is the dataset's folder in the hub's cache, which may not exist; `snapshot` is set where
    there is nothing but it."""

    dataset: Dataset
    hub: Hub
    cached: Path
    snapshot: Path | None = None

    @property
    def uri(self) -> str:
        return self.dataset.uri

    def listed(self) -> Listed:
        files = self._local() if self.snapshot else self._tree()
        if self.dataset.kind == "model":
            return Listed(tuple(files))
        card = next((file for file in files if file.name == CARD), None)
        text = self.read(card, 0, min(card.size, 4 << 20)).decode("utf-8", "replace") if card else ""
        chosen: Chosen = choose(text, [file.name for file in files], self.dataset.configuration, self.uri)
        names = set(chosen.files)
        return Listed(tuple(file for file in files if file.name in names), Counter(chosen.others), splits=chosen.splits)

    def read(self, found: Object, start: int, stop: int) -> bytes:
        stop = min(stop, found.size)
        if start >= stop:
            return b""
        if local := self._here(found):
            with local.open("rb") as file:
                file.seek(start)
                return file.read(stop - start)

        def act() -> bytes:
            with self.hub.stream(self._file(found), wanted=f"bytes={start}-{stop - 1}") as answer:
                whole = answer.status_code == 200  # a server that knows no ranges
                data = bytearray()
                for block in answer.iter_bytes():
                    data += block
                    if len(data) >= (stop if whole else stop - start):
                        break
                data = data[start:stop] if whole else data[: stop - start]
            if len(data) < stop - start:
                raise CutShort(f"the answer ends after {len(data):,} of {stop - start:,} bytes")
            return bytes(data)

        return self.hub.ask(act, self._file(found), self.dataset.repo)

    def fetch(self, found: Object, to: Path) -> None:
        """What arrives is checked against the digest that the hub lists."""
        if local := self._here(found):
            shutil.copyfile(local, to)
            return
        for _ in range(2):
            with to.open("wb") as file:
                done, whole = self._receive(found, file)
            if whole:
                return
        raise self._damaged(found, done)

    def contents(self, found: Object) -> bytes:
        if local := self._here(found):
            return local.read_bytes()
        for _ in range(2):
            file = BytesIO()
            done, whole = self._receive(found, file)
            if whole:
                return file.getvalue()
        raise self._damaged(found, done)

    def _damaged(self, found: Object, done: int) -> JobError:
        why = f"{done:,} bytes with another digest than the hub lists ({found.size:,} bytes)"
        how = "what lies between here and the hub damages or replaces files: see the proxy"
        return JobError("GTJ0113", "a file arrives damaged", where=self.where(found), why=why, how=how)

    def _receive(self, found: Object, file: BinaryIO) -> tuple[int, bool]:
        """How many bytes the hub sends, and whether they are the file; an answer that is cut off is gone on with."""
        path, digest, done = self._file(found), _digest(found), 0

        def act() -> None:
            nonlocal done
            with self.hub.stream(path, wanted=f"bytes={done}-" if done else "") as answer:
                known = done if answer.status_code == 200 else 0  # of a server that knows no ranges, what is there already
                for block in answer.iter_bytes(CHUNK):
                    new = block[known:]
                    known -= len(block) - len(new)
                    file.write(new)
                    digest.update(new)
                    done += len(new)
            if done < found.size:
                raise CutShort(f"the answer ends after {done:,} of {found.size:,} bytes")

        self.hub.ask(act, path, self.dataset.repo, progress=lambda: done)
        return done, done == found.size and digest.hexdigest() == found.tag

    def where(self, found: Object) -> str:
        return f"hf://{self.dataset.page}@{self.dataset.revision}/{found.name}"

    def _file(self, found: Object) -> str:
        return f"/{self.dataset.page}/resolve/{self.dataset.revision}/{quote(found.name)}"

    def _here(self, found: Object) -> Path | None:
        if found.path:
            return found.path
        blob = self.cached / "blobs" / found.tag
        return blob if _TAG.fullmatch(found.tag) and blob.is_file() else None

    def _tree(self) -> list[Object]:
        path = f"{self.dataset.api}/tree/{self.dataset.revision}"
        items = self.hub.pages(path, self.dataset.repo, {"recursive": True, "expand": False})
        files = [Object(item["path"], item["size"], (item.get("lfs") or item)["oid"]) for item in items if item["type"] == "file"]
        return sorted(files, key=lambda file: file.name)

    def _local(self) -> list[Object]:
        assert self.snapshot is not None
        found = []
        for path in sorted(self.snapshot.rglob("*")):
            if path.is_file():
                status, blob = path.stat(), path.resolve().name
                tag = blob if _TAG.fullmatch(blob) else f"{status.st_size}-{status.st_mtime_ns}"
                found.append(Object(path.relative_to(self.snapshot).as_posix(), status.st_size, tag, path))
        return sorted(found, key=lambda file: file.name)


def open_hub(uri: str, *, patience: Patience | None = None) -> HubPlace:
    """The dataset that `uri` names, its revision resolved. JobError GTJ0107 for what is no dataset's URI, GTJ0112, GTJ0113, GTJ0219."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        why, how = "hf:// needs the package huggingface_hub", "pip install huggingface_hub"
        raise JobError("GTJ0107", "a package is not installed", where=uri, why=why, how=how) from error
    return opened(parsed(uri), patience)


def open_model(uri: str, *, patience: Patience | None = None) -> HubPlace:
    """The model of the hub that hf://organisation/name[@revision] names, its revision resolved; all its files. JobErrors of `open_hub`."""
    repo, _, revision = uri.removeprefix("hf://").rstrip("/").partition("@")
    return opened(Dataset(repo, revision=revision, kind="model"), patience)


def opened(dataset: Dataset, patience: Patience | None) -> HubPlace:
    from huggingface_hub import constants

    hub = Hub(constants.ENDPOINT, patience or Patience(), dataset.kind)
    if constants.HF_HUB_OFFLINE:
        return _offline(dataset, hub, Path(constants.HF_HUB_CACHE))
    if not COMMIT.fullmatch(dataset.revision):
        dataset = _resolved(dataset, hub)
    return HubPlace(dataset, hub, _cached(dataset, Path(constants.HF_HUB_CACHE)))


def parsed(uri: str) -> Dataset:
    """The parts of the URI. JobError GTJ0107."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    shape = "hf://datasets/org/name, hf://datasets/org/name/configuration or hf://datasets/org/name@revision"
    found = _SHAPE.fullmatch(uri)
    if not found:
        rest = uri.removeprefix("hf://")
        how = f"write hf://datasets/{rest}" if re.fullmatch(r"[^/@]+/[^/@]+(@.+)?", rest) else f"write {shape}"
        raise JobError("GTJ0107", "not the URI of a dataset on the hub", where=uri, how=how)
    try:
        validate_repo_id(found["repo"])
    except HFValidationError as error:
        raise JobError("GTJ0107", "no dataset can be called like this", where=uri, why=str(error), how=f"write {shape}") from error
    return Dataset(found["repo"], found["configuration"] or "", found["revision"] or "")


def _resolved(dataset: Dataset, hub: Hub) -> Dataset:
    try:
        return replace(dataset, revision=_commit(dataset, hub))
    except JobError as error:
        # An old dataset without an organisation, and a configuration of it: hf://datasets/glue/mrpc.
        name, slash, configuration = dataset.repo.partition("/")
        if not slash or dataset.configuration or dataset.kind == "model" or error.code == "GTJ0219" or "revision" in error.what:
            raise
        old = Dataset(name, configuration, dataset.revision)
        try:
            return replace(old, revision=_commit(old, hub))
        except JobError:
            raise error from None


def _commit(dataset: Dataset, hub: Hub) -> str:
    revision = f"/revision/{quote(dataset.revision, safe='')}" if dataset.revision else ""
    answer = hub.json(f"{dataset.api}{revision}", dataset.repo, {"expand": "sha"})
    if not isinstance(answer, dict) or not COMMIT.fullmatch(str(answer.get("sha"))):
        how = "see whether HF_ENDPOINT names a hub"
        raise JobError("GTJ0219", "what answers is no hub", where=hub.endpoint, why=f"it names no commit of {dataset.repo}", how=how)
    return str(answer["sha"])


def _offline(dataset: Dataset, hub: Hub, cache: Path) -> HubPlace:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            dataset.repo, repo_type=dataset.kind, revision=dataset.revision or None, cache_dir=cache, local_files_only=True
        )
    except FileNotFoundError as error:
        whole = "incomplete" in str(error)
        revision = f" --revision {dataset.revision}" if dataset.revision else ""
        raise JobError(
            "GTJ0113",
            f"the {dataset.kind} {dataset.repo} is not {'whole ' if whole else ''}on this machine, and HF_HUB_OFFLINE forbids to fetch it",
            where=str(_cached(dataset, cache)),
            why=str(error).partition(". ")[0] if whole else "",
            how=f"unset HF_HUB_OFFLINE, or where there is a network: hf download --repo-type {dataset.kind} {dataset.repo}{revision}",
        ) from error
    snapshot = Path(found)
    return HubPlace(replace(dataset, revision=snapshot.name), hub, _cached(dataset, cache), snapshot)


def _cached(dataset: Dataset, cache: Path) -> Path:
    return cache / f"{dataset.kind}s--{dataset.repo.replace('/', '--')}"


def _digest(found: Object) -> Any:
    """What `tag` is a digest by: SHA-256, or git's SHA-1 of a blob."""
    return hashlib.sha256() if len(found.tag) == 64 else hashlib.sha1(b"blob %d\0" % found.size, usedforsecurity=False)
