"""What an environment says it holds, and what it was built from: against pip's own list, the files themselves, git, and the two formats."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "sbom.py"
DIGEST = "sha256:" + "a" * 64
COMMIT = "b" * 40

TEXT = {"type": "string", "minLength": 1}
SUM = {
    "type": "object",
    "properties": {
        "algorithm": {"enum": ["SHA1", "SHA256"]},
        "checksumValue": {"type": "string", "pattern": "^([0-9a-f]{40}|[0-9a-f]{64})$"},
    },
    "required": ["algorithm", "checksumValue"],
}


def holds(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


ID = {"type": "string", "pattern": r"^SPDXRef-[A-Za-z0-9.-]+$"}
SPDX = holds(
    spdxVersion={"const": "SPDX-2.3"},
    dataLicense={"const": "CC0-1.0"},
    SPDXID={"const": "SPDXRef-DOCUMENT"},
    name=TEXT,
    documentNamespace={"type": "string", "pattern": "^urn:uuid:[0-9a-f-]{36}$"},
    creationInfo=holds(
        created={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
        creators={"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^(Tool|Person|Organization): ."}},
    ),
    packages={"type": "array", "items": holds(SPDXID=ID, name=TEXT, versionInfo=TEXT, downloadLocation=TEXT, licenseDeclared=TEXT)},
    files={"type": "array", "items": holds(SPDXID=ID, fileName=TEXT, checksums={"type": "array", "minItems": 2, "items": SUM})},
    relationships={"type": "array", "items": holds(spdxElementId=ID, relationshipType=TEXT, relatedSpdxElement=ID)},
    hasExtractedLicensingInfos={
        "type": "array",
        "items": holds(licenseId={"type": "string", "pattern": "^LicenseRef-[A-Za-z0-9.-]+$"}, extractedText=TEXT),
    },
)
SHA256 = holds(sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"})
STATEMENT = holds(
    _type={"const": "https://in-toto.io/Statement/v1"},
    subject={"type": "array", "minItems": 1, "items": holds(name=TEXT, digest=SHA256)},
    predicateType={"const": "https://slsa.dev/provenance/v1"},
    predicate=holds(
        buildDefinition=holds(
            buildType={"type": "string", "pattern": "^https://"},
            externalParameters={"type": "object"},
            resolvedDependencies={"type": "array", "items": {"anyOf": [{"required": ["uri"]}, {"required": ["digest"]}]}},
        ),
        runDetails=holds(builder=holds(id={"type": "string", "pattern": "^[a-z]+:"}), metadata=holds(finishedOn=TEXT)),
    ),
)


def written(out: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(out), *words]
    return subprocess.run(command, capture_output=True, text=True, check=check, env={"SOURCE_DATE_EPOCH": "1700000000"})


def both(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bill and the statement, in the form that is theirs, and the second of the first."""
    bill, statement = (json.loads((out / name).read_text()) for name in ("sbom.spdx.json", "provenance.json"))
    jsonschema.validate(bill, SPDX)
    jsonschema.validate(statement, STATEMENT)
    ids = [one["SPDXID"] for kind in ("packages", "files") for one in bill[kind]]
    assert len(ids) == len(set(ids))
    named = {one[end] for one in bill["relationships"] for end in ("spdxElementId", "relatedSpdxElement")}
    assert named - {"SPDXRef-DOCUMENT"} == set(ids), "everything is related to something, and nothing to what is not there"
    assert statement["subject"][0]["digest"]["sha256"] == hashlib.sha256((out / "sbom.spdx.json").read_bytes()).hexdigest()
    texts = {one["licenseId"] for one in bill["hasExtractedLicensingInfos"]}
    assert {name for one in bill["packages"] for name in re.findall(r"LicenseRef-[\w.-]+", one["licenseDeclared"])} == texts
    return bill, statement


def related(bill: dict[str, Any], kind: str) -> set[tuple[str, str]]:
    short = {one["SPDXID"]: one["SPDXID"].rpartition("SPDXRef-Package-")[2] for one in bill["packages"]}
    pairs = [(one["spdxElementId"], one["relatedSpdxElement"]) for one in bill["relationships"] if one["relationshipType"] == kind]
    return {(short.get(one, one), short.get(other, other)) for one, other in pairs}


def package(folder: Path, name: str, version: str, *metadata: str, files: tuple[str, ...] = ("__init__.py",), left: int = 1) -> None:
    """As an installer leaves it; of `files` the first `left` are there."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("\n".join([f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}", *metadata]) + "\n")
    paths = [f"{name}/{file}" for file in files]
    (info / "RECORD").write_bytes("".join(f"{one},,\r\n" for one in (*paths, f"{info.name}/METADATA", f"{info.name}/RECORD")).encode())
    for path in paths[:left]:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    package(folder, "gentrain", "1.0", "License-Expression: Apache-2.0", "Requires-Dist: One>=1", 'Requires-Dist: two; extra == "more"')
    needs = ("Requires-Dist: absent", 'Requires-Dist: elsewhere; sys_platform == "none"')
    package(folder, "one", "1.2+cpu", "License: Apache License 2.0", *needs, files=("__init__.py", "b.py"), left=1)
    package(folder, "two", "2", "Classifier: License :: OSI Approved :: MIT License")
    package(folder, "three", "3", "License: Whatever you like", "Classifier: License :: Other")
    package(folder, "four", "4", "License-Expression: MIT AND LicenseRef-Own")
    package(folder, "five", "5")
    package(folder, "hollow", "6", left=0)
    with (folder / "gentrain-1.0.dist-info" / "METADATA").open("a") as file:
        file.write("Provides-Extra: more\n")
    return folder


def test_what_lies_in_a_folder(packages: Path, tmp_path: Path) -> None:
    written(tmp_path, "--name", "an-image", "--path", str(packages), "--source", "")
    bill, _ = both(tmp_path)
    root, *found = bill["packages"]
    assert (root["name"], root["versionInfo"], bill["creationInfo"]["created"]) == ("an-image", "1.0", "2023-11-14T22:13:20Z")
    assert [one["name"] for one in found] == ["five", "four", "gentrain", "one", "three", "two"], "of the hollow one only metadata is left"
    assert {one["name"]: one["licenseDeclared"] for one in found} == {
        "gentrain": "Apache-2.0",
        "one": "Apache-2.0",
        "two": "MIT",
        "three": "LicenseRef-three",
        "four": "MIT AND LicenseRef-Own",
        "five": "NOASSERTION",
    }
    assert {one["licenseId"]: one["extractedText"] for one in bill["hasExtractedLicensingInfos"]}["LicenseRef-three"] == "Whatever you like"
    one = next(one for one in found if one["name"] == "one")
    assert one["externalRefs"][0]["referenceLocator"] == "pkg:pypi/one@1.2%2Bcpu"
    assert one["comment"] == "required and not there: absent; 1 of its 4 files are not there"
    assert related(bill, "DEPENDS_ON") == {("gentrain", "one")}
    assert related(bill, "OPTIONAL_DEPENDENCY_OF") == {("two", "gentrain")}


def test_digests_are_of_the_files_as_they_lie_there(packages: Path, tmp_path: Path) -> None:
    written(tmp_path, "--path", str(packages), "--source", "")
    bill, _ = both(tmp_path)
    for one in bill["files"]:
        content = (packages / one["fileName"]).read_bytes()
        sums = {each["algorithm"]: each["checksumValue"] for each in one["checksums"]}
        assert sums == {"SHA1": hashlib.sha1(content).hexdigest(), "SHA256": hashlib.sha256(content).hexdigest()}
    assert len(bill["files"]) == 6


def test_the_same_environment_gives_the_same_document_and_another_one_another_name(packages: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name, "--path", str(packages), "--source", "")
    (packages / "two-2.dist-info" / "RECORD").write_text("two/__init__.py,,\n")
    written(tmp_path / "c", "--path", str(packages), "--source", "")
    first, second, third = ((tmp_path / name / "sbom.spdx.json").read_text() for name in "abc")
    assert first == second
    assert json.loads(first)["documentNamespace"] != json.loads(third)["documentNamespace"]


@pytest.mark.parametrize(("source", "commit", "dirty"), [("", "unknown", None), (COMMIT, COMMIT, False), (f"{COMMIT}-dirty", COMMIT, True)])
def test_what_it_was_built_from(source: str, commit: str, dirty: bool | None, packages: Path, tmp_path: Path) -> None:
    bases = [f"PYTHON_IMAGE=python:3.11@{DIGEST}", "OPERATOR_IMAGE=registry:5000/base:1"]
    given = ["--source", source, *(word for base in bases for word in ("--base", base)), "--file", str(ROOT / "constraints.txt")]
    wheel = tmp_path / "gentrain-1.0.whl"
    wheel.write_bytes(b"wheel")
    said = written(tmp_path, "--path", str(packages), *given, "--subject", str(wheel), "--builder", "https://ci.example.com/7").stdout
    _, statement = both(tmp_path)
    built, ran = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert built["externalParameters"]["source"] == {"commit": commit, **({} if dirty is None else {"dirty": dirty})}
    materials = {one["name"]: one for one in built["resolvedDependencies"]}
    assert ("source" in materials) == bool(source)
    assert materials["constraints.txt"]["digest"]["sha256"] == hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()
    assert materials["PYTHON_IMAGE"]["digest"] == {"sha256": "a" * 64}
    assert materials["OPERATOR_IMAGE"] == {"name": "OPERATOR_IMAGE", "uri": "docker://registry:5000/base:1"}
    assert statement["subject"][1] == {"name": wheel.name, "digest": {"sha256": hashlib.sha256(b"wheel").hexdigest()}}
    assert ran["builder"]["id"] == "https://ci.example.com/7"
    assert ("unknown commit" in said, "in no commit" in said) == (not source, bool(dirty))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--source", "main"], "--source 'main' is no commit: give what `python3 .ci/provenance.py` says, or nothing"),
        (["--base", "python:3.11"], "--base 'python:3.11' is no NAME=IMAGE"),
        (["--subject", "/nowhere/x.whl"], "/nowhere/x.whl is no file"),
        (["--path", "/nowhere"], "no packages in /nowhere: name the folders that pip installed into"),
    ],
)
def test_what_cannot_be_told_is_refused(words: list[str], told: str, tmp_path: Path) -> None:
    done = written(tmp_path / "out", *(["--source", ""] if "--source" not in words else []), *words, check=False)
    assert (done.returncode, done.stderr) == (1, f"sbom.py: {told}\n")
    assert not (tmp_path / "out").exists()


def test_the_working_tree_is_told_apart_from_its_commit(tmp_path: Path) -> None:
    """Also by a file that git does not know: an image would hold it."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    told = [sys.executable, str(tmp_path / "provenance.py")]
    (tmp_path / "provenance.py").write_text((ROOT / ".ci" / "provenance.py").read_text())
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip() == commit
    (tmp_path / "new.py").write_text("")
    assert subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip() == f"{commit}-dirty"


@pytest.mark.parametrize("target", ["operator", "trainer"])
def test_the_images_are_built_with_it(target: str, packages: Path, tmp_path: Path) -> None:
    """The Dockerfile's own command, in folders like those that it finds; and what it writes is copied to where the page says."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stage = "operator-project" if target == "operator" else "trainer"
    whole = text[text.index(f" AS {stage}\n") :].split("\nFROM ")[0]
    (command,) = re.findall(r"^RUN python3 (\S*sbom\.py .+)$", whole, re.MULTILINE)
    arguments = {"PYTHON_IMAGE": f"python:3@{DIGEST}", "OPERATOR_IMAGE": f"base@{DIGEST}", "SOURCE": COMMIT, "BUILDER": ""}
    for name in re.findall(r"\$\{(\w+)\}", command):
        assert re.search(rf"^ARG {name}$", whole, re.MULTILINE), "an argument of before the first stage counts in none"
        command = command.replace(f"${{{name}}}", arguments[name])
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "gentrain.whl").write_bytes(b"wheel")
    (tmp_path / "project").mkdir()
    (tmp_path / "constraints.txt").write_text("a==1\n")
    words = [word.replace("/", f"{tmp_path}/", 1) if word.startswith("/") else word for word in shlex.split(command)]
    words = [word.replace("*", "gentrain") for word in words[1:]]
    words += [] if "--path" in words else ["--path", str(packages)]  # the trainer's lie where its Python looks by itself
    subprocess.run([sys.executable, str(SCRIPT), *words], cwd=tmp_path, check=True, capture_output=True)
    bill, statement = both(tmp_path / "sbom")
    assert bill["name"] == f"gentrain-{target}"
    assert statement["predicate"]["buildDefinition"]["externalParameters"]["source"] == {"commit": COMMIT, "dirty": False}
    assert [one["name"] for one in statement["subject"]] == ["sbom.spdx.json", "gentrain.whl"]
    page = (ROOT / "docs" / "how-to" / "images.md").read_text()
    assert "/opt/gentrain/sbom/sbom.spdx.json" in page
    if target == "operator":
        assert "/sbom/sbom.spdx.json /sbom/provenance.json /opt/gentrain/sbom/\n" in text
    else:
        assert re.search(r"^WORKDIR /opt/gentrain$", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{word}" for word in re.findall(r"\.ci/\w+\.py", whole)} <= set(ignored), "else the build finds none of it"


@pytest.mark.slow
def test_this_environment_is_what_pip_lists(tmp_path: Path) -> None:
    """`make sbom`, by the Makefile's own line."""
    (line,) = re.findall(r"^sbom:.*\n\t\$\(BIN\)/python (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    subprocess.run([sys.executable, *line.split(), "--out", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    bill, statement = both(tmp_path)
    pip = subprocess.run([sys.executable, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    listed = {(re.sub(r"[-_.]+", "-", one["name"]).lower(), one["version"]) for one in json.loads(pip.stdout)}
    assert {(one["SPDXID"].removeprefix("SPDXRef-Package-"), one["versionInfo"]) for one in bill["packages"][1:]} == listed
    direct = {name for one, name in related(bill, "DEPENDS_ON") if one == "gentrain"}
    assert direct == {"blake3", "click", "pydantic", "pyyaml", "rich"}
    assert ("torch", "gentrain") in related(bill, "OPTIONAL_DEPENDENCY_OF")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    source = statement["predicate"]["buildDefinition"]["externalParameters"]["source"]
    assert source["commit"] == (head or "unknown")
