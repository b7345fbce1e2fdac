"""Write down what an environment holds and what it was built from: sbom.spdx.json and provenance.json. `make sbom` and the Dockerfile do.

The first is SPDX 2.3: every Python distribution with its version, licence, purl and dependencies, and the digests of its RECORD, which
itself holds a digest of every file of it. The second is an in-toto statement with SLSA's provenance (provenance.py beside this).
What installed packages say of themselves is repeated, not judged. Debian's packages in an image are not in it.

    python .ci/sbom.py --name gentrain-trainer --out build/sbom [--path DIR ...] [what provenance.py takes]
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path
from typing import Any

import provenance
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT_ID = "SPDXRef-Environment"
SAME = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "mit license": "MIT",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    **{name.lower(): name for name in ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "HPND", "ISC", "MIT", "MPL-2.0", "PSF-2.0")},
}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sbom.py", description="sbom.spdx.json and provenance.json of an environment")
    parser.add_argument("--name", default="gentrain", help="of the environment, an image's for one")
    parser.add_argument("--out", type=Path, default=Path("build/sbom"))
    parser.add_argument("--path", action="append", help="where packages lie, again for each folder; default: this interpreter's own")
    provenance.options(parser)
    given = parser.parse_args(words)
    now = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or datetime.datetime.now().timestamp()), datetime.UTC)
    try:
        built = provenance.inputs(given)
    except ValueError as error:
        print(f"sbom.py: {error}", file=sys.stderr)
        return 1
    found = installed(given.path)
    if not found:
        print(f"sbom.py: no packages in {', '.join(given.path or sys.path)}: name the folders that pip installed into", file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    bill = given.out / "sbom.spdx.json"
    bill.write_text(json.dumps(document(given.name, found, now), indent=1) + "\n")
    statement = provenance.statement(built, [bill, *given.subject], now)
    (given.out / "provenance.json").write_text(json.dumps(statement, indent=1) + "\n")
    print(f"{bill}: {len(found)} packages. {given.out / 'provenance.json'}: {built.told()}")
    return 0


def installed(path: Sequence[str] | None = None) -> dict[str, Distribution]:
    """Distributions by normalized name; of two the one that is imported. Not those of which nothing but metadata is left."""
    found: dict[str, Distribution] = {}
    for one in distributions(path=list(path)) if path else distributions():
        if one.metadata["Name"]:
            found.setdefault(canonicalize_name(one.metadata["Name"]), one)
    return {name: one for name, one in sorted(found.items()) if not _hollow(one)}


def document(name: str, found: Mapping[str, Distribution], now: datetime.datetime) -> dict[str, Any]:
    """The SPDX document of an environment."""
    texts: dict[str, str] = {}
    packages = [_package(one, found, texts) for one in found.values()]
    version = found["gentrain"].version if "gentrain" in found else "unknown"
    root = {"SPDXID": ROOT_ID, "name": name, "versionInfo": version, "primaryPackagePurpose": "CONTAINER", **_UNKNOWN}
    records = {key: record for key, one in found.items() if (record := _record(one)) is not None}
    content = {
        "packages": [root, *packages],
        "files": [_file(key, record) for key, record in records.items()],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", ROOT_ID),
            *(_relation(ROOT_ID, "CONTAINS", _id(key)) for key in found),
            *(_relation(_record_id(key), "METAFILE_OF", _id(key)) for key in records),
            *(relation for key, one in found.items() for relation in _dependencies(key, one, found)),
        ],
        "hasExtractedLicensingInfos": [{"licenseId": key, "extractedText": text} for key, text in texts.items()],
    }
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([name, stamp, content], sort_keys=True))
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:uuid:{identity}",
        "creationInfo": {"created": stamp, "creators": ["Tool: gentrain-sbom"]},
        **content,
    }


_UNKNOWN = {
    **{"downloadLocation": "NOASSERTION", "filesAnalyzed": False, "supplier": "NOASSERTION"},
    **{"licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION"},
}


def _package(one: Distribution, found: Mapping[str, Distribution], texts: dict[str, str]) -> dict[str, Any]:
    """`texts` gets the licences that have no SPDX name, in the package's words."""
    name = canonicalize_name(one.metadata["Name"])
    purl = f"pkg:pypi/{name}@{one.version.replace('+', '%2B')}"
    notes = []
    absent = sorted({key for extra, key in _required(one) if not extra} - found.keys())
    if absent:
        notes.append(f"required and not there: {', '.join(absent)}")
    files = one.files or ()
    gone = sum(not one.locate_file(file).exists() for file in files)
    if gone:
        notes.append(f"{gone} of its {len(files)} files are not there")
    return {
        "SPDXID": _id(name),
        "name": one.metadata["Name"],
        "versionInfo": one.version,
        **_UNKNOWN,
        "licenseDeclared": _licence(name, one, texts),
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
        **({"comment": "; ".join(notes)} if notes else {}),
    }


def _licence(name: str, one: Distribution, texts: dict[str, str]) -> str:
    """An SPDX expression, or the name of a text: what the package says where that is no expression. NOASSERTION where it says nothing."""
    expression = one.metadata.get("License-Expression")
    if expression:
        for key in re.findall(r"LicenseRef-[\w.-]+", expression):
            texts[key] = f"as {one.metadata['Name']} {one.version} calls it"
        return str(expression)
    said = (one.metadata.get("License") or "").strip()
    if said.lower() in SAME:
        return SAME[said.lower()]
    classified = [text.rpartition(" :: ")[2] for text in one.metadata.get_all("Classifier") or () if text.startswith("License :: ")]
    if len(classified) == 1 and classified[0].lower() in SAME:
        return SAME[classified[0].lower()]
    if not said and not classified:
        return "NOASSERTION"
    key = f"LicenseRef-{name}"
    texts[key] = said or "; ".join(classified)
    return key


def _record(one: Distribution) -> PackagePath | None:
    """Its RECORD; None for what was installed without one."""
    return next((file for file in one.files or () if file.name == "RECORD" and file.parent.suffix == ".dist-info"), None)


def _file(name: str, record: PackagePath) -> dict[str, Any]:
    """The digests of a RECORD; SPDX wants a SHA-1 of every file."""
    content = Path(str(record.locate())).read_bytes()
    sums = [{"algorithm": kind.upper(), "checksumValue": hashlib.new(kind, content).hexdigest()} for kind in ("sha1", "sha256")]
    unknown = dict.fromkeys(("licenseConcluded", "copyrightText"), "NOASSERTION")
    return {"SPDXID": _record_id(name), "fileName": f"./{record}", "checksums": sums, "licenseInfoInFiles": ["NOASSERTION"], **unknown}


def _dependencies(name: str, one: Distribution, found: Mapping[str, Distribution]) -> Iterator[dict[str, str]]:
    needed = set()
    for extra, key in sorted(_required(one)):
        if key in found and key != name and key not in needed:  # what is needed anyway comes first
            needed.add(key)
            yield _relation(_id(key), "OPTIONAL_DEPENDENCY_OF", _id(name)) if extra else _relation(_id(name), "DEPENDS_ON", _id(key))


def _required(one: Distribution) -> Iterable[tuple[str, str]]:
    """(extra or "", name) of everything that it requires on this platform."""
    found = set()
    for requirement in map(Requirement, one.requires or ()):
        for extra in ("", *(one.metadata.get_all("Provides-Extra") or ())):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found.add((extra, canonicalize_name(requirement.name)))
                break
    return found


def _hollow(one: Distribution) -> bool:
    """Whether its files were removed and its metadata left."""
    files = [file for file in one.files or () if ".dist-info" not in str(file)]
    return bool(files) and not any(one.locate_file(file).exists() for file in files)


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _id(name: str) -> str:
    return f"SPDXRef-Package-{name}"


def _record_id(name: str) -> str:
    return f"SPDXRef-Record-{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
