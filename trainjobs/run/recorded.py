"""The reading side of a run's record (record.py): all attempts put together into a run folder, for whoever reads run folders.

A later attempt went on from a checkpoint, so what earlier ones measured behind the step where it began is of a future that did not happen.
Logs of earlier attempts are in `logs/attempt-<n>`; the driver's are put one behind the other.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.run.folder import RECORD, objects
from trainjobs.run.record import FOLDER, PIECE_KEY
from trainjobs.stores.store import TEMPORARY, BlobStore, Missing, check_key

_ATTEMPT = re.compile(r"a(\d+)")


def runs(store: BlobStore) -> list[str]:
    """The folders directly below a URI that have a record: the runs that keep their checkpoints there."""
    return [folder for folder in store.folders("") if store.folders(f"{folder}/{FOLDER}")]


def fetch(store: BlobStore, into: Path, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Put the record of the run whose checkpoints are in `store` together in the folder `into`: of its files those that are `wanted`.

    JobError GTJ0118 where there is none. Pieces that are missing or torn end their file: what comes before them is there.
    """
    attempts = sorted(
        (int(match[1]), folder) for folder in store.folders(FOLDER) if (match := _ATTEMPT.fullmatch(folder.rpartition("/")[2]))
    )
    if not attempts:
        how = (
            "name the place of one run: checkpoints.uri of its manifest, a slash, and its uid (its name for gtj run); gtj ls URI lists them"
        )
        raise JobError("GTJ0118", "no record of a run", where=f"{store.uri}/{FOLDER}", how=how)
    into.mkdir(parents=True, exist_ok=True)
    for number, folder in attempts:
        last = number == attempts[-1][0]
        for name, content in _files(store, folder, wanted).items():
            _put(into, name, content, number, last=last)
    (into / RECORD).write_text(json.dumps({"uri": store.uri, "attempts": [number for number, _ in attempts]}))
    return into


def _files(store: BlobStore, folder: str, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    whole: dict[str, str] = {}
    pieces: dict[str, dict[int, dict[int, str]]] = {}
    for entry in store.entries(folder):
        name = entry.key.removeprefix(f"{folder}/")
        match = PIECE_KEY.fullmatch(name)
        plain = match["name"] if match else name
        try:
            check_key(plain)  # a record from a bucket must not reach outside the folder
        except ValueError:
            continue
        if plain.split("/")[-1].startswith(TEMPORARY) or not wanted(plain):
            continue
        if match:
            pieces.setdefault(plain, {}).setdefault(int(match["generation"]), {})[int(match["offset"])] = entry.key
        else:
            whole[plain] = entry.key
    found = {name: store.get(key) for name, key in whole.items()}
    for name, generations in pieces.items():
        content = b""
        for offset, key in sorted(generations[max(generations)].items()):
            if offset != len(content):
                break
            try:
                content += gzip.decompress(b"".join(store.read(key)))
            except (OSError, EOFError, zlib.error, Missing):
                break
        found[name] = content
    return found


def _put(into: Path, name: str, content: bytes, attempt: int, *, last: bool) -> None:
    path = into / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "metrics.jsonl" and path.exists():
        rows = list(objects(content.decode("utf-8", errors="replace")))
        first = min((row["step"] for row in rows if isinstance(row.get("step"), int)), default=None)
        kept = [row for row in objects(path.read_text()) if first is None or not isinstance(row.get("step"), int) or row["step"] < first]
        path.write_text("".join(json.dumps(row) + "\n" for row in (*kept, *rows)))
    elif name in ("attempts.jsonl", "bad-samples.jsonl", "logs/driver.log"):
        with path.open("ab") as file:
            file.write(content)
    elif name.startswith("logs/") and not last:
        there = into / "logs" / f"attempt-{attempt}" / name.removeprefix("logs/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
    elif name == "failure.json" and not last:
        return  # the next attempt went on from it
    else:
        path.write_bytes(content)
