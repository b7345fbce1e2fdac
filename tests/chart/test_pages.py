"""Pages about the operator against its code: every phase, condition, reason, code and permission is explained, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gentrain_operator import conditions, refusals
from tests.chart.helm import ROOT, rendered
from trainjobs.api.codes import CODES
from trainjobs.api.status import PHASES, FailureClass

SOURCES = sorted((ROOT / "operator" / "gentrain_operator").glob("*.py"))
CONDITIONS = ROOT / "docs" / "reference" / "conditions.md"
FAILURES = ROOT / "docs" / "concepts" / "failures.md"
SECURITY = ROOT / "docs" / "concepts" / "security.md"


def rows(page: Path, columns: int) -> list[list[str]]:
    """Bodies of the tables with so many columns."""
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in page.read_text().splitlines() if line.startswith("| ")
    ]
    return [[cell.strip("`") for cell in line] for line in lines if len(line) == columns and not line[0].startswith("---")][1:]


def texts(node: ast.expr, module: ast.Module) -> set[str]:
    """The strings that an argument may be: constants, either side of a condition, or a variable as it was last set before."""
    if isinstance(node, ast.Name):
        given: list[tuple[int, ast.expr]] = []
        for one in ast.walk(module):
            if isinstance(one, ast.Assign) and any(isinstance(target, ast.Name) and target.id == node.id for target in one.targets):
                given.append((one.lineno, one.value))
            if isinstance(one, ast.comprehension) and isinstance(one.target, ast.Name) and one.target.id == node.id:
                given.append((one.iter.lineno, one.iter))
        node = max((one for one in given if one[0] <= node.lineno), key=lambda one: one[0])[1]
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.IfExp):
        return texts(node.body, module) | texts(node.orelse, module)
    if isinstance(node, ast.Tuple):
        return set().union(*(texts(one, module) for one in node.elts))
    return set()


def written() -> Iterator[tuple[str, str]]:
    """(condition, reason) as the code makes them."""
    for path in SOURCES:
        module = ast.parse(path.read_text())
        for call in ast.walk(module):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("Condition", "Waiting"):
                reason = call.args[2] if call.func.id == "Condition" else call.args[1]
                kinds = texts(call.args[0], module)
                assert kinds, f"{path.name}:{call.lineno}"
                if not isinstance(reason, ast.Attribute):  # that of a Waiting, which is found by itself
                    assert texts(reason, module), f"{path.name}:{call.lineno}"
                    yield from ((kind, one) for kind in kinds for one in texts(reason, module))
    yield from (("Accepted", reason) for reason in refusals.WHAT)


def test_every_condition_and_reason_is_explained() -> None:
    explained = {(condition, reason) for condition, _, reason, _, _ in rows(CONDITIONS, 5)}
    assert explained == set(written())
    assert {condition for condition, _ in explained} == set(conditions.TYPES)


def test_events_are_told_as_they_are_made() -> None:
    for condition, status, reason, _, event in rows(CONDITIONS, 5):
        before = [] if status == "True" else [{"type": condition, "status": "True", "reason": "x"}]
        after = [{"type": condition, "status": status, "reason": reason, "message": ""}]
        assert [one.type for one in conditions.events(before, after)] == ([event] if event else []), (condition, reason)


def test_every_phase_is_explained() -> None:
    assert tuple(phase for phase, _ in rows(CONDITIONS, 2)) == PHASES


def test_every_code_of_the_operator_has_a_page_and_a_class() -> None:
    named = {code for path in SOURCES for code in re.findall(r"GTJ0\d{3}", path.read_text())}
    assert named <= set(CODES)
    listed = {match[1]: row[2] for row in rows(FAILURES, 4) if (match := re.match(r"\[(GTJ\d+)\]", row[0]))}
    assert named <= set(listed)
    for code, kind in listed.items():
        assert (ROOT / "docs" / "errors" / f"{code}.md").exists()
        assert any(one in kind for one in (*FailureClass.__args__, "waits", "shown")), code


def test_the_pages_of_concepts_are_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (CONDITIONS, FAILURES, SECURITY, ROOT / "docs" / "concepts" / "lifecycle.md"):
        assert f"({page.relative_to(ROOT / 'docs')})" in index


def test_threats_are_sorted_by_stride() -> None:
    kinds = [row[0] for row in rows(SECURITY, 4)]
    stride = ["Spoofing", "Tampering", "Repudiation", "Information disclosure", "Denial of service", "Elevation of privilege"]
    assert [one for one in dict.fromkeys(kinds) if one in stride] == stride


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_every_permission_is_explained() -> None:
    roles = [one for one in rendered() if one["kind"] in ("Role", "ClusterRole") and "-viewer" not in one["metadata"]["name"]]
    granted = {
        (group or "core", resource)
        for role in roles
        if "-editor" not in role["metadata"]["name"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    groups = {group for group, _ in granted}
    assert {(row[0], row[1]) for row in rows(SECURITY, 4) if row[0] in groups} == granted
