"""What a run reads beside its manifest, changed between two attempts: data, weights, code, versions, workers, threads, what is cached."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file

from tests.silence import objective
from tests.silence.attempts import Attempt, Bench, Row
from tests.silence.bases import bases, picture
from tests.silence.changes import Manifest
from trainjobs.api.errors import JobError

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group

Made = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Input:
    """`change` is in force while the run goes on; `words` must be told or refused with, or "" where the result is to be the very same."""

    what: str
    change: Callable[[], AbstractContextManager[Any]]
    words: str = ""
    update: tuple[tuple[str, Any], ...] = ()  # of the manifest's spec, by dotted name


def rows(root: Path) -> Iterator[Row]:
    """Every input, on the base that reads it."""
    made = bases(root / "data")
    pictures, lines = root / "data" / "images", root / "data" / "jsonl" / "lines.jsonl"
    allowed = (("checkpoints.allowDataChange", True),)
    bench = Bench("vae", made["vae"]["vae"], root / "runs")
    yield from (tried(bench, one) for one in (*of_pictures(pictures, allowed), *of_a_machine()))
    yield moved(bench, pictures, root / "moved")
    yield tried(bench, Input("family", nullcontext, "diffusion.network"), made["diffusion"]["diffusion"])
    yield two_workers(bench, root)

    bench = Bench("language-bpe", made["language"]["language-bpe"], root / "runs")
    grown = '{"text": "Something that was not said before, about wheat and whales."}\n' * 9
    yield tried(bench, Input("text grown", partial(appended, lines, grown), "lines.jsonl"))
    yield tried(bench, Input("text grown, allowed", partial(appended, lines, grown), "1 changed (lines.jsonl)", allowed))
    yield tried(bench, Input("tokens cached before are gone", partial(cleared, root / "runs")))

    bench = Bench("custom", made["custom"]["custom"], root / "runs")
    known = "trainjobs.loop.custom_code"
    yield tried(bench, Input("code of the custom objective", lambda: patch(known, lambda spec: "other"), "objective"))
    yield tried(bench, Input("weights that are not trained", lambda: patch.object(objective, "REFERENCE", 2.0), "not trained"))

    weights = beginning(Bench("weights", made["vae"]["vae"], root / "runs"), root / "weights")
    manifest = copy.deepcopy(made["vae"]["vae"])
    manifest["spec"]["training"]["initialWeights"] = f"file://{weights}"
    yield tried(Bench("vae-initial", manifest, root / "runs"), Input("initial weights replaced", partial(doubled, weights)))


def of_pictures(folder: Path, allowed: tuple[tuple[str, Any], ...]) -> list[Input]:
    more = partial(written, folder / "99.png", 99)
    return [
        Input("picture added", more, "1 added (99.png)"),
        Input("picture added at the front, allowed", partial(written, folder / "!.png", 99), "1 added (!.png)", allowed),
        Input("picture removed", partial(removed, folder / "07.png"), "1 removed (07.png)"),
        Input("picture changed, as large as before", partial(written, folder / "07.png", 99), "1 changed (07.png)"),
        Input("picture changed, allowed", partial(written, folder / "07.png", 99), "1 changed (07.png)", allowed),
        Input("pictures have other times", partial(touched, folder)),
        Input("how a new run holds out", lambda: patch("trainjobs.loop.rule_of", lambda spec: "place")),
    ]


def of_a_machine() -> list[Input]:
    torch_2 = {"torch": "9.9.9"}
    return [
        Input("code of gtj", lambda: patch("trainjobs.checkpointer.identity._code", lambda: "other"), "code "),
        Input("version of torch", lambda: patch("trainjobs.loop.versions", partial(with_versions, torch_2)), "torch "),
        Input("threads", partial(threads, 2), "threads 1 -> 2"),
        Input("variable of the environment", lambda: patch.dict(os.environ, {"SOMETHING": "else"})),
        Input("random state that the process came with", lambda: nullcontext(torch.manual_seed(99))),
    ]


def tried(bench: Bench, one: Input, manifest: Manifest | None = None) -> Row:
    changed = copy.deepcopy(manifest or bench.manifest)
    for name, value in one.update:
        *rooms, last = name.split(".")
        part = changed["spec"]
        for room in rooms:
            part = part.setdefault(room, {})
        part[last] = value
    with one.change():
        found = bench.resumed(changed)
    return judged(bench, one, found)


def judged(bench: Bench, one: Input, found: Attempt) -> Row:
    said = found.error.line() if isinstance(found.error, JobError) else "; ".join(found.told)
    same = found.same(bench.reference)
    if found.error is not None and not isinstance(found.error, JobError):
        return Row(f"input: {one.what}", bench.name, "", "DEFECT", repr(found.error)[:200])
    if not one.words:
        verdict, words = ("FALSE", said) if said else ("same", "") if same else ("SILENT", "another result")
        return Row(f"input: {one.what}", bench.name, "", verdict, words)  # type: ignore[arg-type]
    if one.words not in said:
        return Row(f"input: {one.what}", bench.name, "", "SILENT", f"{one.words!r} is not in {said!r}")
    if isinstance(found.error, JobError):
        return Row(f"input: {one.what}", bench.name, "", "refused", found.error.code)
    return Row(f"input: {one.what}", bench.name, "", "told", "the result is the same" if same else "")


def moved(bench: Bench, pictures: Path, elsewhere: Path) -> Row:
    """The same pictures in another folder: the manifest's field is told, and the result is the same."""
    shutil.copytree(pictures, elsewhere)
    row = tried(bench, Input("pictures in another folder", nullcontext, "data.source", (("data.source", f"file://{elsewhere}"),)))
    return row if row.words == "the result is the same" else Row(row.what, row.base, "", "SILENT", f"{row.verdict} {row.words}")


def two_workers(bench: Bench, root: Path) -> Row:
    """Two processes go on from what one began."""
    run = root / "two"
    shutil.copytree(bench.begun, run)
    manifest = copy.deepcopy(bench.manifest)
    manifest["spec"]["compute"]["workers"] = 2
    group.prepare(run, manifest["spec"])
    before = set((run / "attempts.jsonl").read_text().splitlines())
    group.run_group(2, [str(run)], root)
    said = "\n".join(line for line in (run / "attempts.jsonl").read_text().splitlines() if line not in before)
    good = "compute.workers 1 -> 2" in said and ", workers 1 -> 2" in said
    return Row("input: workers", bench.name, "1 -> 2", "told" if good else "SILENT", "" if good else said)


def beginning(bench: Bench, folder: Path) -> Path:
    """Weights to begin with: those that a run ended with."""
    folder.mkdir(parents=True)
    (shard,) = sorted(bench.begun.glob("checkpoints/steps/*/rank-0/autoencoder.safetensors"))
    tensors = {key.removeprefix("fp32/"): value for key, value in load_file(shard).items() if key.startswith("fp32/")}
    save_file(tensors, folder / "autoencoder.safetensors")
    return folder


@contextmanager
def doubled(folder: Path) -> Iterator[None]:
    path = folder / "autoencoder.safetensors"
    save_file({key: 2 * value for key, value in load_file(path).items()}, path)
    yield


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Afterwards the file is as it was."""
    was = path.read_bytes() if path.exists() else None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if was is not None:
            path.write_bytes(was)


@contextmanager
def written(path: Path, number: int) -> Iterator[None]:
    with kept(path):
        picture(path, number)
        yield


@contextmanager
def removed(path: Path) -> Iterator[None]:
    with kept(path):
        path.unlink()
        yield


@contextmanager
def appended(path: Path, more: str) -> Iterator[None]:
    with kept(path):
        path.write_text(path.read_text() + more)
        yield


@contextmanager
def touched(folder: Path) -> Iterator[None]:
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    yield


@contextmanager
def cleared(runs: Path) -> Iterator[None]:
    for path in runs.glob("*/cache"):
        shutil.rmtree(path)
    yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    was = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(was)


def with_versions(other: dict[str, str]) -> dict[str, str]:
    from trainjobs.checkpointer.identity import versions

    return {**versions(), **other}
