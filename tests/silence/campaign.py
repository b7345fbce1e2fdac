"""The silence campaign: change one thing between two attempts of a run, and see that it goes on identically or says what changed.

python -m tests.silence.campaign [--families vae ...] [--part] [--fields NAME ...] [--no-inputs] [--rows FILE] [--page]

Every field of a manifest, of every family, gets another value that its type allows (changes.py), and so do a run's inputs outside of it
(inputs.py). A run of four tiny steps stops after two and goes on with the change. Exit status 1 when anything was silent, told falsely,
or ended in what is no JobError, and for a field for which no family has another value.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist

from tests.checkpointer.at_once import AtOnce
from tests.silence import inputs, pipelines
from tests.silence.attempts import Bench, Row
from tests.silence.bases import WHOLE, bases, given
from tests.silence.changes import Change, change, different, dotted, dumped, fields_of, single
from tests.silence.page import ONE_VALUE, REFUSED, record
from tests.silence.pretrained import offline
from trainjobs.api.job import FAMILIES
from trainjobs.api.shape import Field
from trainjobs.checkpointer import saver
from trainjobs.engine import compilation


def main() -> int:
    parser = argparse.ArgumentParser(prog="campaign")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--part", action="store_true", help="the vae's fields, and of the other families those that it has not")
    parser.add_argument("--fields", nargs="*", default=[], help="these alone, dotted")
    parser.add_argument("--no-inputs", action="store_true", help="what the manifest says alone")
    parser.add_argument("--rows", type=Path, help="where the rows go, as JSON")
    parser.add_argument("--page", action="store_true", help="write the rows to bench/results/, and docs/silence.md from them")
    told = parser.parse_args()
    torch.set_num_threads(1)
    saver.Uploader = AtOnce  # type: ignore[misc, assignment]
    compilation.BACKEND = "aot_eager"  # what is told is the same, and no program is built for a minute
    rows: list[Row] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        root = Path(name)
        dist.init_process_group("gloo", store=dist.FileStore(str(root / "store"), 1), rank=0, world_size=1)
        for row in of_fields(root, ["vae"] if told.part else told.families, set(told.fields), rows, part=told.part):
            rows.append(row)
            show(row)
        for row in () if told.no_inputs else inputs.rows(root / "inputs"):
            rows.append(row)
            show(row)
        dist.destroy_process_group()
    if told.rows:
        told.rows.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if told.page:
        record(rows, time.monotonic() - began)
    bad = [row for row in rows if not row.good or row.what in nowhere(rows)]
    print(f"{len(rows)} changes in {time.monotonic() - began:.0f} s, {len(bad)} of them wrong", flush=True)
    for row in bad:
        show(row)
    return 1 if bad else 0


def of_fields(root: Path, families: list[str], only: set[str], before: list[Row], *, part: bool) -> Iterator[Row]:
    """Of every field of the families, or `only` some; with `part` also those of the other families that `before` has nothing of."""
    made, values = bases(root / "data"), given(root / "data")
    offline(root / "data" / "hub")
    if {"diffusion"} & {*families, *(FAMILIES if part else ())}:
        pipelines.write(root / "data")
    for family in [*families, *(name for name in FAMILIES if part and name not in families)]:
        benches: dict[str, Bench] = {}
        known = {row.what for row in before} - nowhere(before) if family not in families else set()
        for field in fields_of(family=family):
            name = dotted(field.path)
            if name not in known and (not only or name in only):
                yield tried(field, name, family, made, values, benches, root / "runs")


def tried(field: Field, name: str, family: str, made: inputs.Made, values: inputs.Made, benches: dict[str, Bench], runs: Path) -> Row:
    if single(field.annotation):
        return Row(name, family, ONE_VALUE, "same")
    found = replaced(name, made[family]) if name in WHOLE else change(field, made[family], values.get(name, {}))
    if isinstance(found, str):
        return Row(name, family, REFUSED, "refused", found)
    if found.base not in benches:
        benches[found.base] = Bench(found.base, made[family][found.base], runs)
    return benches[found.base].tried(found)


def replaced(name: str, made: dict[str, Any]) -> Change:
    """A change of a field that cannot change alone."""
    base, other, _ = WHOLE[name]
    manifest = dumped(made[other])
    manifest["spec"]["checkpoints"]["allowDataChange"] = True  # else the data is what is refused
    return Change(name, base, manifest, different(dumped(made[base]), manifest))


def nowhere(rows: list[Row]) -> set[str]:
    """Fields that were refused at validation in every family: nothing was tried with them."""
    return {row.what for row in rows} - {row.what for row in rows if row.change != REFUSED}


def show(row: Row) -> None:
    print(f"{row.verdict:8} {row.base:14} {row.what:40} {row.change[:80]:80} {row.words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
