"""Each import contract of pyproject.toml catches what it forbids: in a copy of the packages, a planted import is named under its contract.

An import within a function counts as much as one at a module's top, and is what is planted, so nothing here is ever executed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS: dict[str, dict[str, Any]] = {
    contract["name"]: contract for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
FLOORS, OPERATOR, FAMILIES = (
    "Floors: a room imports from the rooms below it",
    "The operator sees the API and the plan alone",
    "Families know nothing of each other",
)
ROOMS = {path.stem for path in (ROOT / "trainjobs").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
FLOOR = [[room for room in re.split(r"[|:\s()]+", floor) if room in ROOMS] for floor in CONTRACTS[FLOORS]["layers"]]


class Plant(NamedTuple):
    contract: str
    importer: str
    imported: str
    named: str = ""  # as import-linter calls what is imported: a distribution's package without what is inside it

    @property
    def edge(self) -> str:
        return f"{self.importer} -> {self.named or self.imported} (l."


def inside(room: str) -> str:
    """A module of a room of trainjobs, or the room that is a module itself."""
    folder = ROOT / "trainjobs" / room
    modules = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("__"))
    return f"trainjobs.{room}.{modules[0]}" if modules else f"trainjobs.{room}"


def plants() -> list[Plant]:
    upwards = [Plant(FLOORS, inside(lower[0]), inside(upper[0])) for upper, lower in pairwise(FLOOR)]
    sideways = [Plant(FLOORS, inside(floor[-1]), inside(floor[0])) for floor in FLOOR if len(floor) > 1]
    families = CONTRACTS[FAMILIES]["modules"]
    across = [Plant(FAMILIES, first, second) for first, second in zip(families, [*families[1:], families[0]], strict=True)]
    api, torch_free = "The API imports nothing but pydantic of others", "Plan, commit log and stores import no torch"
    clouds, cluster = (
        "Only stores.s3 with signed, gs and az import a cloud's SDK",
        "Only kube.client and cli.cluster.api import the Kubernetes client",
    )
    return [
        *upwards,
        *sideways,
        Plant(FLOORS, "trainjobs.api.job", "trainjobs.cli.main"),
        Plant(api, "trainjobs.api.job", "torch"),
        Plant(api, "trainjobs.api.errors", "yaml"),
        Plant(api, "trainjobs.api.rules", "gentrain_operator.names"),
        Plant(OPERATOR, "gentrain_operator.decide", "trainjobs.run.numbers"),
        Plant(OPERATOR, "gentrain_operator.kube.store", "trainjobs.loop"),
        Plant(OPERATOR, "gentrain_operator.rayjob", "torch"),
        Plant("Only cli.cluster knows the operator", "trainjobs.cli.status", "gentrain_operator.names"),
        Plant("Only cli.cluster knows the operator", "trainjobs.plan.room", "gentrain_operator.names"),
        Plant(torch_free, "trainjobs.plan.batch", "torch"),
        Plant(torch_free, "trainjobs.checkpoints.log", "deepspeed"),
        Plant(torch_free, "trainjobs.stores.file", "ray"),
        Plant("Only workers.ray_train imports ray", "trainjobs.workers.launch", "ray"),
        Plant("Only workers.ray_train imports ray", "gentrain_operator.polls", "ray"),
        Plant("Only the engine imports deepspeed", "trainjobs.loop", "deepspeed"),
        Plant("Only the engine imports deepspeed", "trainjobs.optim.optimizers", "deepspeed.ops", "deepspeed"),
        Plant(clouds, "trainjobs.stores.bucket", "boto3"),
        Plant(clouds, "trainjobs.stores.s3", "google.cloud.storage", "google"),
        Plant(clouds, "trainjobs.data.files", "azure.storage.blob", "azure"),
        Plant(cluster, "gentrain_operator.controller", "kubernetes"),
        Plant(cluster, "trainjobs.cli.cluster.view", "kubernetes.client", "kubernetes"),
        *across,
    ]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    sources = shutil.ignore_patterns("__pycache__", "templates", "*.j2", "*.json", "*.yaml", "*.md")
    shutil.copytree(ROOT / "trainjobs", root / "trainjobs", ignore=sources)
    shutil.copytree(ROOT / "operator" / "gentrain_operator", root / "operator" / "gentrain_operator", ignore=sources)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def source(copy: Path, module: str) -> Path:
    path = copy / ("operator" if module.startswith("gentrain_operator") else "") / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@contextmanager
def planted(path: Path, text: str) -> Iterator[None]:
    """The file with `text` at its end within the block; as it was, or gone again, after it."""
    before = path.read_text() if path.exists() else None
    path.write_text((before or "") + text)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_text(before)


def broken(copy: Path) -> dict[str, str]:
    """What import-linter says of each contract that is broken."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "operator")]), "COLUMNS": "1000"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout or done.returncode == 1, done.stdout + done.stderr
    titled = re.split(rf"^({'|'.join(map(re.escape, CONTRACTS))})\n-+\n", done.stdout, flags=re.MULTILINE)
    found = dict(zip(titled[1::2], titled[2::2], strict=True))
    assert found.keys() == {name for name in CONTRACTS if re.search(rf"^{re.escape(name)} BROKEN", done.stdout, re.MULTILINE)}
    return found


def test_every_contract_has_a_plant() -> None:
    assert {plant.contract for plant in plants()} == CONTRACTS.keys()
    assert {room for floor in FLOOR for room in floor} == ROOMS


def test_as_it_is_nothing_is_broken(copy: Path) -> None:
    assert broken(copy) == {}


@pytest.fixture(scope="module")
def named(copy: Path) -> dict[str, str]:
    """Of each contract what is said of it where all of its plants, and no others', are in the copy."""
    said = {}
    for contract in CONTRACTS:
        with ExitStack() as stack:
            for plant in plants():
                if plant.contract == contract:
                    assert source(copy, plant.importer).exists()
                    text = f"\n\ndef planted() -> None:\n    import {plant.imported}\n"
                    stack.enter_context(planted(source(copy, plant.importer), text))
            said[contract] = broken(copy)[contract]
    return said


@pytest.mark.parametrize("plant", plants(), ids=lambda plant: f"{plant.importer}-{plant.imported}")
def test_a_forbidden_import_is_named_under_its_contract(plant: Plant, named: dict[str, str]) -> None:
    assert plant.edge in named[plant.contract]


@pytest.mark.parametrize("name", ["unlisted.py", "unlisted/__init__.py"])
def test_a_room_on_no_floor_is_refused(name: str, copy: Path) -> None:
    path = copy / "trainjobs" / name
    path.parent.mkdir(exist_ok=True)
    with planted(path, '"""A room that nobody has put on a floor."""\n'):
        assert "- trainjobs.unlisted\n" in broken(copy)[FLOORS]
    if path.name == "__init__.py":
        path.parent.rmdir()


def test_the_operator_is_forbidden_every_room_but_two() -> None:
    """This contract has to list what it forbids, so a new room goes into the list too."""
    forbidden = {name.removeprefix("trainjobs.") for name in CONTRACTS[OPERATOR]["forbidden_modules"] if name.startswith("trainjobs.")}
    assert ROOMS - forbidden == {"api", "plan"}


def test_every_family_is_one_of_the_independent() -> None:
    """A family is a folder of objectives, with a file `build.py`."""
    families = {f"trainjobs.objectives.{path.parent.name}" for path in (ROOT / "trainjobs" / "objectives").glob("*/build.py")}
    assert families
    assert not families - set(CONTRACTS[FAMILIES]["modules"])
