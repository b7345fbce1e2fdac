"""An explanation for every reason that the operator can give, read from its source: a new one without a sentence fails here."""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from gentrain_operator import conditions
from tests.cli.cluster_jobs import NOW, command, condition, job, pod
from trainjobs.cli.cluster.reasons import Seen, explanation
from trainjobs.cli.cluster.sentences import REFUSED, STUCK
from trainjobs.cli.cluster.server import Kueue

SOURCE = Path(conditions.__file__).parent
TYPES = conditions.TYPES


def constants(node: ast.AST) -> set[str]:
    found = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return {text for text in found if (text.isidentifier() and text[:1].isupper() and text not in TYPES) or text in conditions.MEANINGS}


def reasons() -> set[str]:
    """The strings at the place of a reason in every Condition, Waiting and Refusal of the operator's source, and what _reason returns."""
    found: set[str] = set()
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Condition", "Waiting", "Refusal"):
                at = {"Condition": 2, "Waiting": 1, "Refusal": 0}[node.func.id]
                given = [*node.args[at : at + 1], *(one.value for one in node.keywords if one.arg == "reason")]
                found |= set().union(*map(constants, given))
            if isinstance(node, ast.FunctionDef) and node.name == "_reason":
                found |= set().union(*(constants(one) for one in ast.walk(node) if isinstance(one, ast.Return)))
    return found | set(conditions._WARNINGS) | set(conditions.MEANINGS)


def test_the_source_gives_the_reasons_that_are_known_to_be_given() -> None:
    assert {"InvalidSpec", "PodsForbidden", "Unschedulable", "AdmissionDenied", "NameTaken", "Stalled", "Preempted"} <= reasons()


@pytest.mark.parametrize("reason", sorted(reasons()))
@pytest.mark.parametrize("type_", TYPES)
def test_every_reason_is_explained(type_: str, reason: str) -> None:
    phases = ("Pending", "Queued", "Provisioning", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed")
    pods: list[list[dict[str, Any]]] = [[], [pod("x")]]
    rayjobs: list[dict[str, Any] | None] = [None, {"metadata": {"uid": "r"}, "status": {"message": "pods is forbidden: exceeded quota"}}]
    for phase, status, message, ended, some, rayjob in product(phases, (True, False), ("", "GTJ0305 text"), (0, 1), pods, rayjobs):
        one = job(phase, condition(type_, status, reason, message), ended=ended)
        found = explanation(Seen(one, NOW, command, rayjob, some, kueue=Kueue(None, None, None)))
        assert found.what
        assert found.what[0].islower() or found.what[0].isdigit() or found.what.startswith("KubeRay") or found.fault


def blaming(name: str) -> set[str]:
    """Reasons that the source gives to conditions that are False because something is wrong."""
    found: set[str] = set()
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                found |= constants(node.args[2 if name == "Condition" else 1])
            if name == "Refusal" and isinstance(node, ast.FunctionDef) and node.name == "_reason":
                found |= set().union(*(constants(one) for one in ast.walk(node) if isinstance(one, ast.Return)))
    return found


def test_every_refusal_and_every_reason_of_waiting_pods_has_a_sentence_of_its_own() -> None:
    assert blaming("Waiting") <= set(STUCK)
    refused = {node for node in constants(ast.parse((SOURCE / "refusals.py").read_text())) if node in conditions._WARNINGS}
    assert refused <= set(REFUSED)
    assert len(refused) == 10


@pytest.mark.parametrize("reason", sorted(REFUSED))
def test_a_refusal_is_said_with_its_remedy(reason: str) -> None:
    one = job("Pending", condition("Accepted", False, reason, "GTJ0305 the server's own words"), ended=1)
    found = explanation(Seen(one, NOW, command))
    assert (found.what, found.fault, found.code) == (REFUSED[reason], True, "GTJ0305")
    assert found.why == ("the server's own words",)
    assert found.do


def test_a_quota_that_keeps_an_attempt_from_being_made_is_said_between_attempts_as_well() -> None:
    one = job("Recovering", condition("ResourcesReady", False, "QuotaExceeded", "GTJ0203 full"), ended=1)
    found = explanation(Seen(one, NOW, command))
    assert (found.what, found.code) == (REFUSED["QuotaExceeded"], "GTJ0203")


def test_an_operator_that_has_spoken_has_looked() -> None:
    event = {"metadata": {}, "type": "Warning", "reason": "AdmissionDenied", "message": "no", "reportingComponent": "gentrain.dev/operator"}
    found = explanation(Seen(job(), NOW, command, events=[event]))
    assert "has looked at it" in found.what
    assert found.code == "GTJ0301"
    assert "no operator has looked" in explanation(Seen(job(), NOW, command)).what


def test_a_pod_of_which_an_autoscaler_may_yet_speak_is_no_fault_while_the_operator_says_so() -> None:
    refused = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3",
        "lastTransitionTime": "2026-11-21T10:06:06Z",
    }
    for reason, fault in (("ScalingUp", False), ("Unschedulable", True)):
        one = job("Provisioning", condition("ResourcesReady", False, reason, "said"), attempts=1, ended=0)
        found = explanation(Seen(one, NOW, command, {"metadata": {"uid": "r"}}, [pod(conditions=[refused])]))
        assert (found.what, found.fault) == (STUCK[reason], fault)
