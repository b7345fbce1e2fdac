"""Nothing that changes a result between two attempts is silent: a part of the campaign, and that the campaign finds what it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from tests.silence import page
from tests.silence.attempts import Attempt, Row, judged
from tests.silence.bases import bases, given
from tests.silence.changes import Change, changed, concerns, dotted, dumped, fields_of, names_in
from tests.silence.changes import change as derived
from trainjobs.api.errors import JobError
from trainjobs.api.job import FAMILIES, Job, Spec
from trainjobs.api.vae import Vae, VaeLoss

ROOT = Path(__file__).parents[2]
QUIET = """
import sys
from trainjobs.checkpointer import before
before.changes = lambda *of: []
from tests.silence.campaign import main
sys.exit(main())
"""


class MoreLoss(VaeLoss):
    temperature: Annotated[float, Field(ge=0, le=9)] = 0.5
    word: Annotated[str, Field(pattern="^zebra[0-9]$")] = "zebra1"


class MoreVae(Vae):
    loss: MoreLoss = MoreLoss()


class MoreSpec(Spec):
    vae: MoreVae | None = None


class MoreJob(Job):
    spec: MoreSpec


def campaign(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    path = ":".join(filter(None, (str(ROOT), str(ROOT / "operator"), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, *(["-c", code] if code else ["-m", "tests.silence.campaign"]), *arguments]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False
    )


def change(field: str, **names: tuple[Any, Any]) -> Change:
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}}
    manifest["spec"] = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 4}}  # type: ignore[assignment]
    return Change(field, "vae", manifest, names or {field: (0, 1)})


# --- which changes are tried ------------------------------------------------------------------------------------------------------------


def test_a_new_field_is_in_the_campaign_by_itself(tmp_path: Path) -> None:
    found = {dotted(field.path): field for field in fields_of(MoreJob, "vae")}
    assert found.keys() - {dotted(field.path) for field in fields_of(Job, "vae")} == {"vae.loss.temperature", "vae.loss.word"}
    plain = dumped(bases(tmp_path)["vae"]["vae"])
    first = next(changed(plain, MoreJob, found["vae.loss.temperature"].path))
    assert first["spec"]["vae"]["loss"]["temperature"] == 0.25 or first["spec"]["vae"]["loss"]["temperature"] == 0.5
    assert not list(changed(plain, MoreJob, found["vae.loss.word"].path)), "no value: the campaign fails until it is given one"


def test_every_field_is_found_once_for_every_family() -> None:
    for family in FAMILIES:
        names = Counter(dotted(field.path) for field in fields_of(family=family))
        assert set(names.values()) == {1}
        assert {name.split(".")[0] for name in names} & set(FAMILIES) == {family}


def test_a_change_is_of_the_field_and_of_no_other_where_that_is_possible(tmp_path: Path) -> None:
    made, values = bases(tmp_path), given(tmp_path)
    for field in fields_of(family="vae"):
        found = derived(field, made["vae"], values.get(dotted(field.path), {}))
        if not isinstance(found, str):
            assert any(concerns(field.path, leaf) for leaf in found.names), field.path


@pytest.mark.parametrize(
    ("path", "leaf", "expected"),
    [
        (("spec", "training", "optimizers", "*", "name"), "training.optimizers.default.name", True),
        (("spec", "training", "optimizers", "*", "name"), "training.optimizers.default.betas", False),
        (("spec", "pod", "env", "*", "name"), "pod.env", True),
        (("spec", "training", "ema"), "training.ema.decay", True),
        (("spec", "vae", "network", "layers"), "vae.network.channels", False),
    ],
)
def test_what_a_leaf_is_of(path: tuple[str, ...], leaf: str, expected: bool) -> None:
    assert concerns(path, leaf) == expected


# --- what is judged how -----------------------------------------------------------------------------------------------------------------

AS_BEFORE = Attempt(4, {"a": "1"}, {}, ({"loss": 1.0},))
OTHER = {"tensors": {"a": "2"}}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({}, "same"),
        (OTHER, "SILENT"),
        ({"rows": ({"loss": 2.0},)}, "SILENT"),
        ({**OTHER, "told": ("changed since the checkpoint of step 2: training.seed 0 -> 1",)}, "told"),
        ({**OTHER, "told": ("changed since the checkpoint of step 2: training.seeds 0 -> 1",)}, "SILENT"),
        ({"told": ("changed since the checkpoint of step 2: training.steps 4 -> 5",)}, "FALSE"),
        ({"error": JobError("GTJ0208", "of another model", why="training.seed 0 -> 1")}, "refused"),
        ({"error": JobError("GTJ0208", "of another model")}, "SILENT"),
        ({"error": ValueError("no JobError")}, "DEFECT"),
    ],
)
def test_verdicts(found: dict[str, Any], verdict: str) -> None:
    attempt = Attempt(**{**{name: getattr(AS_BEFORE, name) for name in ("step", "tensors", "states", "rows")}, **found})
    assert judged(attempt, AS_BEFORE, change("training.seed"), False)[0] == verdict


def test_two_attempts_without_weights_are_not_the_same() -> None:
    assert not Attempt().same(Attempt())


def test_names_are_found_whole() -> None:
    line = "changed: training.ema.decay 0.9 -> 0.8, data.source a -> b"
    assert names_in(line, ["training.ema", "training.ema.decay", "ema.decay", "data.source", "data"]) == {
        "training.ema.decay",
        "data.source",
    }


# --- the campaign -----------------------------------------------------------------------------------------------------------------------


def test_the_page_is_of_the_rows() -> None:
    kept = json.loads(page.RESULTS.read_text())
    rows = [Row(**row) for row in kept["rows"]]
    assert page.PAGE.read_text() == page.page(rows, kept["seconds"])
    assert all(row.good for row in rows)


@pytest.mark.slow
def test_no_change_is_silent(tmp_path: Path) -> None:
    """Every field of a vae's manifest, those that only other families have, and every input beside the manifest."""
    done = campaign("--part", "--rows", str(tmp_path / "rows.json"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    rows = [Row(**row) for row in json.loads((tmp_path / "rows.json").read_text())]
    assert {row.what for row in rows} >= {dotted(field.path) for family in FAMILIES for field in fields_of(family=family)}
    assert sum(row.what.startswith("input: ") for row in rows) > 15


@pytest.mark.slow
def test_canary_a_run_that_does_not_tell_is_found() -> None:
    done = campaign("--families", "vae", "--no-inputs", "--fields", "training.seed", "training.optimizers.*.learningRate", code=QUIET)
    assert done.returncode == 1
    assert done.stdout.count("SILENT") == 4, done.stdout  # each as it is found, and again at the end
