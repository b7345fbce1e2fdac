"""The rules of the house: layout, names, pins, no addresses, documentation that does not rot."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "trainjobs").rglob("*.py"), *(ROOT / "operator").rglob("*.py")])
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line.strip() and not line.startswith("#"))


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / ".ci" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in plain | named}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_operator_is_no_package_of_its_own() -> None:
    """A package called operator at the root would shadow the standard library's module for every program started there."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert (ROOT / "operator" / "gentrain_operator" / "__init__.py").exists()


def test_modules_are_named_for_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "base", "misc"}
    assert not [path for path in SOURCES if vague & {path.stem, path.parent.name}]


def test_modules_fit_in_one_sitting() -> None:
    tables = {"codes.py"}
    long = {str(path.relative_to(ROOT)): lines for path in SOURCES if (lines := path.read_text().count("\n")) > 300}
    assert not {path: lines for path, lines in long.items() if Path(path).name not in tables}


def test_everything_that_is_required_is_pinned_within_its_range() -> None:
    missing = [str(requirement) for requirement in requirements() if canonicalize_name(requirement.name) not in PINS]
    outside = [
        str(requirement)
        for requirement in requirements()
        if (pin := PINS.get(canonicalize_name(requirement.name))) and not requirement.specifier.contains(pin, prereleases=True)
    ]
    assert not missing
    assert not outside


def test_constraints_hold_names_and_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)]


def test_no_package_index_is_named() -> None:
    """Where packages come from is the user's configuration."""
    files = [ROOT / name for name in ("Makefile", "Dockerfile", "pyproject.toml", "constraints.txt", ".ci/install.py", ".ci/run")]
    assert not [path for path in files if re.search(r"https?://|--(extra-)?index-url|trusted-host (?!\w*\")", path.read_text())]


def test_imports_of_others_are_declared() -> None:
    import_names = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn", "prometheus-client": "prometheus_client"}
    import_names |= {"google-cloud-storage": "google", "azure-storage-blob": "azure", "azure-identity": "azure"}
    extras = {name: group for name, group in PROJECT["optional-dependencies"].items() if name != "dev"}
    declared = {
        import_names.get(name := canonicalize_name(requirement.name), name.replace("-", "_"))
        for group in [PROJECT["dependencies"], *extras.values()]
        for requirement in map(Requirement, group)
    }
    part_of_a_declared_one = {"annotated_types", "botocore", "markupsafe", "pydantic_core", "urllib3"}
    known = declared | part_of_a_declared_one | sys.stdlib_module_names | {"tensorboardX", "trainjobs", "gentrain_operator"}
    assert not {(path.name, name) for path in SOURCES for name in imported(path) if name not in known}


def test_images_hold_dependencies_and_project_in_separate_layers() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)
    trainer = next(stage for stage in stages if " AS trainer" in stage)
    assert trainer.index("-r trainer.txt") < trainer.index("/wheels/*.whl")
    assert "USER 1000:1000" in trainer
    assert "torch" not in next(stage for stage in stages if " AS operator" in stage)


def test_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text().count("\n") < 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)\b", page.read_text(), re.MULTILINE))
    assert not named - make_targets()


def test_benchmark_page_is_made_from_the_results() -> None:
    from bench.table import page

    assert (ROOT / "docs" / "benchmarks.md").read_text() == page(ROOT / "bench" / "results")


def test_uv_is_told_what_pip_is_configured_with(install: ModuleType) -> None:
    pip = {
        "index-url": "A",
        "extra-index-url": "B\nC",
        "find-links": f"{ROOT} /nowhere",
        "cert": "/c.pem",
        "trusted-host": "h",
        "no-index": "1",
    }
    told = install.uv_environment(pip, {"UV_FIND_LINKS": "http://x/links"})
    assert told["UV_DEFAULT_INDEX"] == "A"
    assert told["UV_INDEX"] == "B C"
    assert told["UV_FIND_LINKS"] == f"{ROOT},http://x/links"
    assert told["SSL_CERT_FILE"] == "/c.pem"
    assert told["UV_INSECURE_HOST"] == "h"
    assert told["UV_NO_INDEX"] == "1"


def test_uv_keeps_what_the_user_set_for_it(install: ModuleType) -> None:
    told = install.uv_environment({"index-url": "A", "cert": "/c.pem"}, {"UV_DEFAULT_INDEX": "mine", "SSL_CERT_FILE": "/mine.pem"})
    assert "UV_DEFAULT_INDEX" not in told
    assert "SSL_CERT_FILE" not in told


def test_a_torch_of_ones_own_is_not_pinned(install: ModuleType) -> None:
    pins = install.constraints("torch==2.12.0+cpu")
    assert "torch" not in pins
    assert not [name for name in pins if name.startswith("nvidia-")]
    assert install.constraints("")["torch"] == PINS["torch"]
    assert pins["ray"] == PINS["ray"]


def test_install_says_which_build_of_torch_comes(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    install.announce(" + nvidia-cublas==13.1\n + torch==2.13.0\n")
    cuda = capsys.readouterr().out
    install.announce(" + torch==2.13.0+cpu\n")
    cpu = capsys.readouterr().out
    assert "CUDA build" in cuda
    assert "3 GB to download" in cuda
    assert "GENTRAIN_TORCH" in cuda
    assert "0.5 GB to download" in cpu


def test_install_refuses_a_disk_that_is_too_small(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 3 << 30}))
    with pytest.raises(subprocess.CalledProcessError):
        install.announce(" + nvidia-cublas==13.1\n")
    assert "only 3.0 GB of disk are free" in capsys.readouterr().err
