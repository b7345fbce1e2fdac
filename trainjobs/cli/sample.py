"""gtj sample: what a trained model draws, from a run, a checkpoint in any store, or an exported folder."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from trainjobs.api.errors import JobError
from trainjobs.cli.output import find, name_argument

COUNT = 16
BETWEEN = 6  # pictures between two, with --interpolate


@click.command("sample", short_help="Draw samples from a run, a checkpoint or an export.")
@name_argument
@click.option("--count", type=click.IntRange(1, 100_000), help=f"How many; default: one for each prompt given, else {COUNT}.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Default: the run's own, whose samples are those of its evaluations.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help="What to draw; may be repeated. Of a language model: what to go on from, or the file of a picture to caption.",
)
@click.option("--prompts", "file", type=click.Path(path_type=Path, dir_okay=False), help="A file with a prompt on each line.")
@click.option("--label", "labels", multiple=True, help="A class to draw, by name or number; may be repeated.")
@click.option("--guidance", type=float, help="Instead of sampler.guidance.")
@click.option("--steps", type=int, help="Instead of sampler.steps.")
@click.option("--interpolate", is_flag=True, help=f"Draw {BETWEEN} in between each two samples as well.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for what is drawn; default: samples-NAME.")
def command(
    name: str,
    count: int | None,
    seed: int | None,
    prompts: tuple[str, ...],
    file: Path | None,
    labels: tuple[str, ...],
    guidance: float | None,
    steps: int | None,
    interpolate: bool,
    out: Path | None,
) -> None:
    """Draw from NAME: a run under ./gentrain-runs or its folder, a checkpoint's URI, or a folder of gtj checkpoints export.

    No cluster and no data is needed. Writes each sample, a sheet of all, and samples.json, which says how each was made.
    """
    import torch

    from trainjobs.sampling.draw import drawn
    from trainjobs.sampling.opened import opened, wanted
    from trainjobs.sampling.written import write

    asked = [*prompts, *lines(file), *labels]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="gtj-sample-") as scratch:
        folder, job = exported(name, Path(scratch))
        found = opened(folder, name, job, device, guidance=guidance, steps=steps, scratch=Path(scratch))
        if labels and wanted(found) != "label":
            how = "give --prompt, or take it out" if wanted(found) else "take it out"
            raise JobError("GTJ0108", "the model has no classes", where="--label", how=how)
        many = count or (len(asked) if asked else COUNT)
        made = drawn(
            found, many, found.spec.training.seed if seed is None else seed, asked, device, interpolate=BETWEEN if interpolate else 0
        )
        target = out or Path(f"samples-{Path(name.rstrip('/')).name}")
        shown = write(made, found, target, name, device.type)
    click.echo(f"step {found.facts['step']}  {found.facts['weights']} weights  {len(made.told)} samples  {shown}")


def lines(file: Path | None) -> list[str]:
    """Those of a file that say something. JobError GTJ0113."""
    if file is None:
        return []
    try:
        found = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise JobError("GTJ0113", "the prompts cannot be read", where=str(file), why=str(error), how="name a text file") from error
    if not found:
        raise JobError("GTJ0113", "there is no prompt", where=str(file), why="every line is empty", how="write one on each line")
    return found


def exported(name: str, scratch: Path) -> tuple[Path, Mapping[str, Any] | None]:
    """A folder as `gtj checkpoints export` writes it, and the manifest's spec where there is one: what NAME is, or what becomes of its
    newest checkpoint."""
    from trainjobs.api.uris import file_path
    from trainjobs.checkpoints import locate
    from trainjobs.export.companion import whole
    from trainjobs.export.export import FACTS

    here = Path(file_path(name)) if name.startswith("file://") else Path(name)
    if (here / FACTS).is_file():
        return here, None
    if "://" in name and (fetched := remote(name, scratch / "fetched")):
        return fetched, None
    uri, job = name, None
    if "://" not in name:
        run = find(name)
        uri, job = run.checkpoints_uri(), run.spec()
    checkpoints, commit = locate(uri)
    whole(checkpoints, commit, scratch / "export", weights=None, dtype="fp32", plain=True)
    return scratch / "export", job


def remote(uri: str, folder: Path) -> Path | None:
    """An export in a bucket, fetched; None where there is none."""
    from trainjobs.export.export import FACTS
    from trainjobs.stores.open import open_store
    from trainjobs.stores.store import Missing, StoreError, check_key

    store = open_store(uri)
    try:
        facts = store.get(FACTS)
    except (Missing, StoreError):
        return None
    folder.mkdir(parents=True)
    (folder / FACTS).write_bytes(facts)
    told = json.loads(facts)
    named = {check_key(file) for files in [*told["networks"].values(), told.get("autoencoder", [])] for file in files}
    for key in sorted(named):
        (folder / key).parent.mkdir(exist_ok=True)
        with (folder / key).open("wb") as file:
            for block in store.read(key):
                file.write(block)
    for name in ("tokenizer.json", "chat_template.jinja"):  # of a language model alone
        with contextlib.suppress(Missing, StoreError):
            (folder / name).write_bytes(store.get(name))
    return folder
