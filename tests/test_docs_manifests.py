"""What the pages show of manifests is right, by the rules of shown.py, and the pages and files that are named are there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shown import CHART_PAGE, FILES, OTHERS, PACKAGES, PAGES, ROOT, Loader, codes, is_part, patterns, wrong, wrong_inline, wrong_sets
from trainjobs.api.job import API_VERSION, KIND, Job
from trainjobs.api.profile import Profile
from trainjobs.api.status import Status

# --- The pages -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_manifests_and_fields_of_a_page_are_right(page: Path) -> None:
    found = []
    for code in codes(page):
        problems = wrong_sets(code.text)
        problems += wrong_inline(code.text, page) if code.language is None else wrong(code.text, page) if code.language == "yaml" else []
        found += [f"{code.where}: {problem}" for problem in problems]
    assert not found, "\n".join(found)


def test_the_pages_show_manifests() -> None:
    blocks = [code for page in PAGES for code in codes(page) if code.language == "yaml"]
    inline = {code.text for page in PAGES for code in codes(page) if code.language is None}
    assert len(blocks) >= 8
    assert {"checkpoints.keep.last", "evaluation.metrics: [modes]", "status.failure.logTail", "networkPolicy.jobs.from"} <= inline


def test_what_looks_like_a_field_and_is_none_is_still_there() -> None:
    inline = {code.text for page in PAGES for code in codes(page) if code.language is None}
    assert set(OTHERS) <= inline
    names = {name for root in (Job, Profile, Status) for path in patterns(root) for name in path}
    assert not names & {*FILES, *PACKAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_part_of_a_manifest_is_marked_as_yaml(page: Path) -> None:
    found = [code.where for code in codes(page) if code.language not in (None, "yaml") and is_part(code.text)]
    assert not found, "write ```yaml"


WHOLE = "apiVersion: gentrain.dev/v1alpha1\nkind: {}\nmetadata: {{name: a}}\nspec:\n  {}"


@pytest.mark.parametrize(
    ("text", "page", "says"),
    [
        ("training: {stepz: 3}", "x.md", "GTJ0101"),
        ("spec: {training: {batch: {global: 10, micro: 4}}}", "x.md", "GTJ0103"),
        ("language: {network: {hidden: 10, heads: 3}}", "x.md", "GTJ0108"),
        ("optimizers: {autoencoder: {learningRate: 1e-3}}", "gan.md", "GTJ0102"),
        ("checkpoints: {keep: {best: {metric: loss}}}", "vae.md", "GTJ0102"),
        ("trainings: {steps: 3}", "x.md", "nothing in a manifest"),
        ("training: {steps: 3", "x.md", "no YAML"),
        ("- training", "x.md", "neither"),
        (WHOLE.format(KIND, "vae: {}"), "x.md", "GTJ0105"),
        (WHOLE.format("ComputeProfile", "capacity: cheap"), "x.md", "GTJ0102"),
        ("kind: Secret", "x.md", "apiVersion"),
        ("spec: {gracePeriodSeconds: 1}", "x.md", "GTJ01"),
        ("replica: 3", "chart.md", "the chart has no value replica"),
    ],
)
def test_a_wrong_block_is_found(text: str, page: str, says: str) -> None:
    problems = wrong(text, CHART_PAGE.with_name(page))
    assert problems
    assert says in problems[0]


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("training: {batch: {global: 16, micro: 8}}", "x.md"),
        ("optimizers: {generator: {learningRate: 1e-4}}", "gan.md"),
        ("checkpoints: {keep: {best: {metric: modes, mode: max}}}", "gan.md"),
        ("{name: A, value: b}", "x.md"),
        ("spec: {gracePeriodSeconds: 30, node: {memory: 8Gi}}", "x.md"),
        (WHOLE.format("ComputeProfile", "capacity: spot"), "x.md"),
        ("apiVersion: v1\nkind: Secret\n---\nspec: {vae: {}}", "x.md"),
        ("replicas: 3\nimage: {tag: x}", "chart.md"),
    ],
)
def test_a_good_block_is_let_through(text: str, page: str) -> None:
    assert wrong(text, CHART_PAGE.with_name(page)) == []


@pytest.mark.parametrize(
    ("text", "page", "good"),
    [
        ("training.optimizers.*.learningRate", "x.md", True),
        ("optimizers.generator.learningRate: 1e-4", "x.md", True),
        ("optimizers.generator.learningRate: 1e-4", "vae.md", False),
        ("optimizers.generator.learning_rate", "x.md", False),
        ("generator.learningRate", "x.md", False),
        ("pod.env[0].value", "x.md", True),
        ("keep.best: {metric: heldout/loss}", "vae.md", True),
        ("keep.best: {metric: loss}", "vae.md", False),
        ("checkpoints.allowOptimizerReset: true", "x.md", True),
        ("checkpoints.allowOptimizerReset: yes please", "x.md", False),
        ("checkpoint.keep", "x.md", False),
        ("deepspeed.config.zero_optimization.stage3_x", "x.md", True),
        ("spec.node.memory: 8Gi", "x.md", True),
        ("status.failure.logTail", "x.md", True),
        ("status.failure.tail", "x.md", False),
        ("networkPolicy.jobs.enabled", "x.md", True),
        ("resumeFrom: <uri>", "x.md", True),
        ("spectralNrm: true", "x.md", False),
    ],
)
def test_inline_code_is_judged(text: str, page: str, good: bool) -> None:
    assert (wrong_inline(text, CHART_PAGE.with_name(page)) == []) is good


def test_sets_are_judged() -> None:
    assert wrong_sets("gtj run --set training.steps=3 --set crds.enabled=false") == []
    assert wrong_sets("gtj run --set spec.training.steps=3 --set steps=3") == ["--set knows no spec.training.steps", "--set knows no steps"]


# --- Other readers -------------------------------------------------------------------------------------------------------------------

SHIPPED = [
    *(path for folder in ("manifests", "charts/gentrain/files") for path in sorted((ROOT / folder).rglob("*.yaml"))),
    *sorted((ROOT / "trainjobs" / "cli" / "templates").glob("*.yaml")),
]


def yaml_shown() -> Iterator[tuple[str, str]]:
    """Everything in YAML that a user may copy: (where, text)."""
    yield from ((str(path.relative_to(ROOT)), path.read_text()) for path in SHIPPED)
    yield from ((code.where, code.text) for page in PAGES for code in codes(page) if code.language == "yaml")


def told_apart(where: str, text: str) -> list[str]:
    """Where YAML 1.1, which Ansible and Kubernetes' Python client read, and 1.2 do not see the same: 2e-3 is a string there."""
    try:
        old, new = (list(yaml.load_all(text, loader)) for loader in (yaml.SafeLoader, Loader))
    except yaml.YAMLError:
        return []  # other tests hold that it is YAML
    return [] if repr(old) == repr(new) else [where]


def test_yaml_that_is_shown_reads_the_same_in_every_yaml() -> None:
    shown = list(yaml_shown())
    assert len(shown) > 30
    assert not [found for where, text in shown for found in told_apart(where, text)], "write 0.002, not 2e-3"
    assert told_apart("x", "learningRate: 2e-3") == ["x"]


# --- Links, and the run folder -------------------------------------------------------------------------------------------------------

NAMING = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")),
    *(path for folder in ("trainjobs", "operator", "charts", "manifests") for path in (ROOT / folder).rglob("*.*")),
]


def test_every_page_that_is_named_exists() -> None:
    """As docs/folder/page.md, in pages, code, messages and templates."""
    texts = {path: path.read_text() for path in NAMING if path.suffix in (".md", ".py", ".yaml", ".j2", ".tpl", ".txt")}
    named = {(path, name) for path, text in texts.items() for name in re.findall(r"\bdocs/[\w/.-]+\.(?:md|json|png)\b", text)}
    assert len(named) > 20
    assert not [f"{path.relative_to(ROOT)}: {name}" for path, name in sorted(named) if not (ROOT / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page: Path) -> None:
    """test_house.py sees to the pages."""
    links = re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text())
    inside = [(page.parent / name if name else page, anchor) for name, anchor in links if "://" not in name]
    assert not [f"{other.name}#{anchor}" for other, anchor in inside if anchor not in headings(other)]


def headings(page: Path) -> set[str]:
    """As GitHub makes anchors of them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", text).lower()).strip().replace(" ", "-") for text in found}


RUN_FOLDER = (ROOT / "docs" / "reference" / "run-folder.md").read_text()
RING = {
    "gan": {
        "generator": {"architecture": "mlp", "channels": 8, "latentDim": 2},
        "discriminator": {"architecture": "mlp", "channels": 8},
    },
    "data": {"source": "builtin:ring"},
    "training": {"steps": 4, "batch": {"global": 8}},
    "compute": {"gpusPerWorker": 0},
    "evaluation": {"everySteps": 2, "samples": 8},
}
NOWHERE = {"vae": {}, "data": {"source": "file:///nowhere/at/all"}, "training": {"steps": 1}, "compute": {"gpusPerWorker": 0}}


def listed_files() -> list[re.Pattern[str]]:
    """The first column of the page's tables of files: <...> stands for a part of a name, and what ends with / for all below."""
    tables = re.findall(r"^\| File .*\n\| ---.*\n((?:\|.*\n)+)", RUN_FOLDER, re.MULTILINE)
    names = [name for table in tables for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    return [re.compile(re.sub(r"<[^>]+>", "[^/]+", re.escape(name)) + (".*" if name.endswith("/") else "")) for name in names]


def section(name: str) -> str:
    """What the page says of a file's, or folder's, fields."""
    return RUN_FOLDER.split(f"### {name}\n")[1].split("\n## ")[0].split("\n### ")[0]


def unnamed(name: str, rows: Iterator[dict[str, Any]]) -> set[str]:
    """Fields of rows that their section does not name, but for those that are named for a metric."""
    said = set(re.findall(r"`([^`]+)`", section(name)))
    metrics = r"lr/.*|loss.*|score/.*|accuracy/.*|gradient_norm/.*|modes.*"
    return {key for row in rows for key in row if key not in said and not re.fullmatch(metrics, key)}


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "status"), [(RING, 0), (NOWHERE, 7)], ids=["succeeded", "failed"])
def test_every_file_of_a_run_and_its_fields_are_on_the_page(spec: dict[str, Any], status: int, tmp_path: Path) -> None:
    job = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}, "spec": spec}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "trainjobs.cli.main", "run", "-f", "job.yaml", "--run-dir", "run"]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    run = tmp_path / "run"
    files = {found.relative_to(run).as_posix() for found in run.rglob("*") if not found.is_dir()}
    assert {"job.json", "progress.json", "failures/counts" if status == 0 else "failure.json"} <= files
    assert not {name for name in files if not any(pattern.fullmatch(name) for pattern in listed_files())}
    for name in files & {"progress.json", "metrics.jsonl", "attempts.jsonl", "timeline.json", "failure.json"}:
        assert not unnamed(name, map(json.loads, (run / name).read_text().splitlines())), name
    accounts = [json.loads((run / name).read_text()) for name in files if name.startswith("failures/")]
    assert not unnamed("failures", iter(accounts)) - set(re.findall(r"`([^`]+)`", section("failure.json")))
    events = {json.loads(row)["event"] for row in (run / "attempts.jsonl").read_text().splitlines()}
    assert events <= set(re.findall(r"`([^`]+)`", section("attempts.jsonl")))
