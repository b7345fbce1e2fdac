"""The rules of the house: layout, names, pins, no addresses, documentation that does not rot."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.dearest import DEAREST, turn

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "trainjobs").rglob("*.py"), *(ROOT / "operator").rglob("*.py")])
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = [f"/{path.relative_to(ROOT)}" for name in ("trainjobs", "operator", "tests", "bench") for path in (ROOT / name).rglob("*.py")]
TRAINER = ROOT / "trainjobs"
ROOMS = {path.parent.name for path in TRAINER.glob("*/__init__.py")}
# Folders of tests that are of no room of the trainer.
NO_ROOMS = {"chart", "cluster", "e2e", "e2e_local", "equivalence", "faults", "gpu", "integration", "operator", "silence"}
LEFT_OUT = {"crew", "crews", "courier", "couriers", "halves", "reclaim", "reclaims"}  # names that gave way to the field's own words
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


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """A source's syntax tree, for whichever rules look through it."""
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, wherever in it."""
    nodes = nodes_of(path)
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in plain | named}


def imports(root: Path, package: str) -> dict[str, set[str]]:
    """Of every module of a package that lies in `root`, the modules of the package that it names in an import, wherever in it."""
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in (root / package).rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = name.split(".")[: (path.name == "__init__.py") - node.level or None] if node.level else []
                whole = ".".join([*above, *([node.module] if node.module else [])])
                named = {alias.name: f"{whole}.{alias.name}" for alias in node.names}
                found[name] |= {inner if inner in modules else whole for inner in named.values()}
        found[name] &= modules.keys()
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, the first again at the end; [] when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def words(name: str) -> set[str]:
    """The words of a name: of `CrewList`, `_crew_list` and `CREW_LIST` crew and list."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def misplaced(test: str, room: str, modules: set[str]) -> bool:
    """Whether the file of a test is named neither for one of the modules of its room nor for the room."""
    subject = test.removeprefix("test_").removesuffix(".py")
    return not any(subject == name or subject.startswith(f"{name}_") for name in {room, *modules})


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_operator_is_no_package_of_its_own() -> None:
    """A package called operator at the root would shadow the standard library's module for every program started there."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert (ROOT / "operator" / "gentrain_operator" / "__init__.py").exists()


def test_modules_are_named_for_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "base", "misc"}
    assert not [path for path in SOURCES if vague & {path.stem, path.parent.name}]


def test_names_that_are_left_out_do_not_come_back() -> None:
    assert words("CrewList") & words("_crew_list") & words("CREW_LIST") == {"crew", "list"}
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    named = {(path, node.name) for path in SOURCES for node in nodes_of(path) if isinstance(node, defined)}
    modules = {(path, name) for path in SOURCES for name in (path.stem, path.parent.name)}
    assert not {(str(path.relative_to(ROOT)), name) for path, name in named | modules if words(name) & LEFT_OUT}


def test_the_root_of_the_trainer_holds_rooms_and_little_else() -> None:
    modules = {"__init__.py", "loop.py", "noise.py", "noise_kernel.py", "noise_words.py", "state.py", "world.py", "py.typed"}
    assert {path.name for path in TRAINER.iterdir()} - {"__pycache__"} == modules | ROOMS


@pytest.mark.parametrize("package", ["trainjobs", "operator/gentrain_operator", "bench"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    """An import within a function counts: it hides a circle, and opens none."""
    graph = imports((ROOT / package).parent, Path(package).name)
    assert any(graph.values())
    assert circle(graph) == []


@pytest.mark.parametrize(
    "back", ["import p.room.a", "from p.room import a", "from p.room.a import x", "from . import a", "from .a import x"]
)
def test_canary_a_circle_is_found(back: str, tmp_path: Path) -> None:
    (tmp_path / "p" / "room").mkdir(parents=True)
    (tmp_path / "p" / "__init__.py").touch()
    (tmp_path / "p" / "room" / "__init__.py").touch()
    (tmp_path / "p" / "room" / "a.py").write_text("from p.room import b\n")
    (tmp_path / "p" / "room" / "b.py").write_text("import ast\n")
    assert circle(imports(tmp_path, "p")) == []
    (tmp_path / "p" / "room" / "b.py").write_text(f"def late() -> None:\n    {back}\n")
    assert set(circle(imports(tmp_path, "p"))) == {"p.room.a", "p.room.b"}


def test_tests_lie_beside_the_rooms_that_they_are_about() -> None:
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert folders == (folders & ROOMS) | NO_ROOMS
    astray = []
    for room in sorted(folders & ROOMS):
        modules = {path.stem.strip("_") for path in (TRAINER / room).iterdir() if path.name not in ("__init__.py", "__pycache__")}
        astray += [f"{room}/{path.name}" for path in (ROOT / "tests" / room).glob("test_*.py") if misplaced(path.name, room, modules)]
    assert not astray
    about_all = {"contracts", "docs", "house", "loop", "noise", "state", "world"}
    assert not [path.name for path in (ROOT / "tests").glob("test_*.py") if path.stem.split("_")[1] not in about_all]


def test_canary_a_test_of_no_module_is_astray() -> None:
    assert misplaced("test_fit.py", "checkpointer", {"matching", "saver"})
    assert misplaced("test_savers.py", "checkpointer", {"matching", "saver"})
    assert not misplaced("test_saver_twice.py", "checkpointer", {"matching", "saver"})
    assert not misplaced("test_checkpointer_twice.py", "checkpointer", {"matching", "saver"})


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


def test_the_map_has_a_line_for_every_room() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().split("```text\n")[1].split("```")[0]
    top, inner = (re.findall(rf"^{indent}((?:[a-z_]+(?:/|\.py) ?)+) +\S", section, re.MULTILINE) for indent in ("", "  "))
    assert {name.rstrip("/") for line in inner for name in line.split() if name.endswith("/")} == ROOMS
    assert len([line for line in inner if "/" in line]) == len(ROOMS)
    assert {name for line in inner for name in line.split() if name.endswith(".py")} == {path.name for path in TRAINER.glob("[!_]*.py")}
    assert [name for line in top for name in line.split() if not (ROOT / name).is_dir()] == []


def known(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    path = ROOT / ("operator" if name.startswith("gentrain_operator") else "") / name.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module = next((one for one in (path.parent.with_suffix(".py"), path.parent / "__init__.py") if one.exists()), None)
    return module is not None and re.search(rf"\b{path.name}\b", module.read_text()) is not None


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_that_are_named_exist(path: Path) -> None:
    """In prose too: `trainjobs.workers.launch`, `retries.py`, `ray_train/remote.py`."""
    text = path.read_text()
    assert [name for name in re.findall(r"\b(?:trainjobs|gentrain_operator)(?:\.[a-z_]\w*)+", text) if not known(name)] == []
    assert [
        name for name in re.findall(r"(?<![\w/.*-])(?:\w+/)*\w+\.py\b", text) if not any(one.endswith(f"/{name}") for one in FILES)
    ] == []


def test_programs_in_strings_import_what_exists() -> None:
    """What a test hands to another process is checked by nobody before that process is started, which slow tests alone do."""
    missing = []
    for path in [*PAGES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        for module, names in re.findall(
            r"\bfrom ((?:trainjobs|gentrain_operator)[\w.]*) import (\w+(?: as \w+)?(?:, \w+(?: as \w+)?)*)", path.read_text()
        ):
            named = [f"{module}.{name.split(' as ')[0]}" for name in names.split(", ")]
            missing += [(str(path.relative_to(ROOT)), name) for name in named if not known(name)]
    assert not missing


def test_canary_modules_that_do_not_exist_are_seen() -> None:
    assert [known(f"trainjobs.{name}") for name in ("loop", "run", "run.numbers", "run.numbers.short")] == [True] * 4
    assert [known(f"trainjobs.{name}") for name in ("loops", "run.shorts", "run.numbers.shorter")] == [False] * 3


def test_no_package_index_is_named() -> None:
    """Where packages come from is the user's configuration."""
    files = [ROOT / name for name in ("Makefile", "Dockerfile", "pyproject.toml", "constraints.txt", ".ci/install.py", ".ci/run")]
    assert not [path for path in files if re.search(r"https?://|--(extra-)?index-url|trusted-host (?!\w*\")", path.read_text())]


def test_the_dearest_tests_are_there_and_slow() -> None:
    """A file that was renamed or divided would begin last, and all would wait for it."""
    assert [path for path in DEAREST if "pytest.mark.slow" not in (ROOT / "tests" / path).read_text()] == []
    assert len(set(DEAREST)) == len(DEAREST)
    assert [turn("test_house.py"), turn(DEAREST[0]), turn(DEAREST[-1])] == [len(DEAREST), 0, len(DEAREST) - 1]
    assert "--no-loadscope-reorder" in (ROOT / "Makefile").read_text(), "else pytest-xdist has an order of its own"


def test_make_test_and_what_a_change_must_pass_run_every_test_once() -> None:
    text = (ROOT / "Makefile").read_text()
    recipes = dict(re.findall(r"^([a-z]+):[^\n]*\n((?:\t[^\n]*\n)+)", text, re.MULTILINE))
    assert [re.findall(r"pytest -m (\".*?\"|\S+) ", recipes[name]) for name in ("fast", "slow")] == [['"not slow"'], ["slow"]]
    assert re.findall(r"\$\(MAKE\) .*?(\w+)\n", recipes["test"]) == ["fast", "slow"]
    assert re.findall(r"\$\(MAKE\) .*?-O (.*)\n", recipes["check"]) == ["lint types contracts fast"]
    assert re.findall(r"^attempt make (\w+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE) == ["check", "slow"]


def test_imports_of_others_are_declared() -> None:
    import_names = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn", "prometheus-client": "prometheus_client"}
    import_names |= {"google-cloud-storage": "google", "azure-storage-blob": "azure", "azure-identity": "azure"}
    extras = {name: group for name, group in PROJECT["optional-dependencies"].items() if name != "dev"}
    declared = {
        import_names.get(name := canonicalize_name(requirement.name), name.replace("-", "_"))
        for group in [PROJECT["dependencies"], *extras.values()]
        for requirement in map(Requirement, group)
    }
    part_of_a_declared_one = {"annotated_types", "botocore", "markupsafe", "pydantic_core", "triton", "urllib3"}
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


def test_pages_of_benchmarks_are_made_from_the_results() -> None:
    from bench.table import pages

    made = pages(ROOT / "bench" / "results")
    assert {name: (ROOT / "docs" / name).read_text() for name in made} == made


def test_what_a_step_sends_by_arithmetic_is_what_was_measured() -> None:
    from bench.scale_page import handed

    rows = json.loads((ROOT / "bench" / "results" / "scale.json").read_text())["pairs"]
    cases = [(sum(row["parameters"].values()), case) for row in rows for case in row["cases"] if case["processes"] > 1]
    assert {case["stage"] for _, case in cases} == {0, 1, 2, 3}
    for parameters, case in cases:
        told = handed(case["stage"], parameters, 4)
        for rank in case["ranks"]:
            assert all(0 <= rank["sent"][name] - count <= 2000 + count / 1000 for name, count in told.items()), (case["stage"], rank, told)
            assert sum(rank["sent"].values()) <= 1.001 * sum(told.values()) + 2000, "nothing else is sent"
    asked = [[sum(rank["asked"].values()) for rank in case["ranks"]] for _, case in cases]
    assert len({first for first, *_ in asked}) == 1, "as often, whatever the number of ranks"
    assert not any(other for _, *others in asked for other in others), "rank 0 alone asks beside its uploads"


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


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "said"), [("0", "1 skipped"), ("60", "1 passed")])
def test_what_has_not_begun_in_time_is_skipped_and_says_so(minutes: str, said: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "-p",
        "no:cacheprovider",
        f"{__file__}::test_the_root_of_the_trainer_holds_rooms_and_little_else",
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"GENTRAIN_MINUTES": minutes}, capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert ("the 0 minutes of GENTRAIN_MINUTES are over" in done.stdout) == (minutes == "0")


def test_sentences_are_put_together_in_one_place() -> None:
    """By api.errors.sentences: a full stop that is written behind somebody's words may be their second."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            joined = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join"
            parts = node.values[1:] if isinstance(node, ast.JoinedStr) else [node.func.value] if joined else []  # type: ignore[attr-defined]
            found += [f"{path.name}:{node.lineno}" for one in parts if isinstance(one, ast.Constant) and str(one.value).startswith(". ")]  # type: ignore[attr-defined]
    assert found == []
