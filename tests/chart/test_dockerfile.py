"""What the Dockerfile promises, as far as that can be seen without building it, and what the operator's image must hold."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gentrain_operator.rayjob import UID

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
STAGES = {found[2]: found[0] for found in re.findall(r"(FROM (\S+) AS (\S+)\n(?:(?!FROM ).*\n?)*)", TEXT)}
# What the operator's image leaves out: the client's asynchronous half and what only that needs.
REMOVED = {"aiohttp", "aiohappyeyeballs", "aiosignal", "frozenlist", "multidict", "propcache", "yarl"}


def closure(*names: str) -> set[str]:
    """Distributions that the named ones need on this machine, themselves included; `name[extra]` takes the extra's as well."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        needed = [Requirement(one) for one in importlib.metadata.requires(name) or ()]
        extras = wanted.extras or {""}
        waiting += [
            one
            for one in needed
            if any(one.marker is None or one.marker.evaluate({"extra": extra}) for extra in extras)
            and canonicalize_name(one.name) not in found
        ]
        found.add(name)
    return found


@pytest.mark.parametrize(("target", "user"), [("operator", 65532), ("trainer", UID)])
def test_neither_image_runs_as_root(target: str, user: int) -> None:
    """The user is a number, because `runAsNonRoot` cannot look up a name; and the one that chart and RayJobs ask for."""
    assert re.findall(r"^USER (.+)$", STAGES[target], re.MULTILINE) == [f"{user}:{user}"]


def test_the_chart_asks_for_the_operators_user() -> None:
    assert "runAsUser: 65532" in (ROOT / "charts" / "gentrain" / "templates" / "deployment.yaml").read_text()


def test_bases_are_pinned_to_one_python_on_one_debian() -> None:
    bases = dict(re.findall(r"^ARG (\w+)=(\S+)$", TEXT, re.MULTILINE))
    assert set(re.findall(r"^FROM \$\{(\w+)\}", TEXT, re.MULTILINE)) == set(bases)
    assert bases == {"PYTHON_IMAGE": "python:3.11-slim-bookworm", "OPERATOR_IMAGE": "gcr.io/distroless/python3-debian12:nonroot"}


def test_entry_points_are_modules_or_scripts_of_ours() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", STAGES["operator"], re.MULTILINE)
    interpreter, flag, module = json.loads(entry)
    assert (interpreter, flag) == ("python3", "-m")
    assert importlib.util.find_spec(module) is not None
    (command,) = re.findall(r"^CMD (.+)$", STAGES["trainer"], re.MULTILINE)
    assert json.loads(command)[0] in {one.name for one in importlib.metadata.distribution("gentrain").entry_points}


def test_the_operator_has_no_torch_and_no_tools() -> None:
    assert "torch" not in STAGES["operator-packages"] + STAGES["operator"]
    assert not re.search(r"^RUN", STAGES["operator"], re.MULTILINE), "its base has no shell"
    assert not closure("gentrain[operator]") & {"torch", "ray", "deepspeed", "numpy", "transformers", "boto3"}


def test_what_is_removed_is_what_the_dockerfile_removes() -> None:
    (removed,) = re.findall(r"rm -r bin kubernetes/aio (.+?) *&&", STAGES["operator-packages"])
    assert set(removed.split()) == REMOVED


@pytest.mark.slow
def test_the_operator_and_gtj_start_where_nothing_else_is_installed() -> None:
    """In an interpreter that finds the operator's extra, less what its image leaves out, and no other distribution."""
    owners = importlib.metadata.packages_distributions()
    allowed = closure("gentrain[operator]") - REMOVED
    absent = {one for one, by in owners.items() if not {canonicalize_name(name) for name in by} & (allowed | {"gentrain"})}
    assert {"torch", "ray", "numpy", "aiohttp"} <= absent
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r} or name == "kubernetes.aio":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import gentrain_operator.main, trainjobs.cli.main
print(*sorted(name for name in sys.modules if name in {{"kubernetes", "pydantic", "click"}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env={"PYTHONPATH": "operator:."}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["click", "kubernetes", "pydantic"]
