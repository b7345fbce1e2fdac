"""Messages that are put together of the operator's words and others': no two full stops, however those end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from gentrain_operator import preflight, profiles
from gentrain_operator.conditions import Condition
from gentrain_operator.decide import Observed
from gentrain_operator.diagnose import Failure
from gentrain_operator.forerunner import _failed
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object
from gentrain_operator.refusals import of_pod, refusal
from gentrain_operator.served import note
from gentrain_operator.waiting import spoken_by, waiting
from tests.operator.test_decide import NOW, ONE, at, child, decided, failed, job, pod, profile
from trainjobs.api.errors import JobError, sentences
from trainjobs.api.job import Spec

# How the scheduler, Karpenter, kubelets, the API server and programs end what they say.
ENDINGS = ["3 Insufficient cpu", "3 Insufficient cpu.", "no claims to deallocate. ", "is it there?", "cut…", "cut… ", ""]


def conditions(why: str, **more: Object) -> Object:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, **more}]}


def container(state: str, **said: str) -> Object:
    return {"containerStatuses": [{"name": preflight.CONTAINER, "state": {state: said}}]}


def stuck(said: str) -> Iterator[str]:
    """Of pods that do not run, of an attempt and of a preflight, as others say it."""
    events = [
        {"reason": reason, "note": f"{words} {said}", "reportingController": "karpenter", "eventTime": "2026-01-01T12:00:00Z"}
        for reason, words in (
            ("Nominated", "Pod should schedule on"),
            ("FailedScheduling", "did not tolerate taint,"),
            ("FailedScheduling", "exceeds limits,"),
            ("FailedMount", 'configmap "a" not found,'),
        )
    ]
    states = [
        conditions(f"0/3 nodes are available: {said}"),
        conditions(f"0/3 nodes are available: {said}", lastTransitionTime=f"{NOW:%Y-%m-%dT%H:%M:%SZ}"),
        conditions(f'persistentvolumeclaim "runs" not found {said}'),
        container("waiting", reason="CreateContainerConfigError", message=said),
        container("waiting", reason="ImagePullBackOff", message=said),
    ]
    for state in states:
        for told in ([], *([event] for event in events)):
            one = {**pod(), "status": state}
            one["metadata"]["uid"] = "p"
            by = spoken_by(None, NOW)
            found = [waiting([one], child(), {"p": told}, by), preflight.stuck(one, {"p": told}, by)]
            yield from (one.message for one in found if one is not None)
    for words in ("exceeded quota", "failed calling webhook", "is forbidden"):
        found_ = waiting([], {"status": {"message": f"{words} {said}"}})
        assert found_ is not None
        yield found_.message


def refused(said: str) -> Iterator[str]:
    for status, words in ((404, ""), (413, ""), (403, "exceeded quota"), (403, "violates PodSecurity"), (422, ""), (500, "webhook")):
        error = ApiError(status, "reason", f"{words} {said}")
        for found in (refusal(error, "RayJob"), of_pod(error, {"kind": "Pod", **pod()})):
            if found is not None:
                yield found.message
    missing = of_pod(ApiError(403, "Forbidden", f'serviceaccount "a" not found {said}'), pod())
    assert missing is not None
    yield missing.message


def verdicts(said: str) -> Iterator[str]:
    told = {"passed": False, "code": "GTJ0112", "what": "the bucket", "why": said}
    ends = [json.dumps(told | {"how": "make it"}), json.dumps(told | {"how": said, "where": said}), json.dumps(told), said]
    states = [container("terminated", message=end, reason="Error") for end in ends]
    states.append(container("terminated", message=said, reason="ContainerCannotRun"))
    for state in states:
        found = preflight.verdict({"metadata": {"name": "p"}, "status": {"phase": "Failed", **state}})
        assert found is not None
        yield found.said
        yield _failed({"said": found.said}).message


def chosen(said: str) -> Iterator[str]:
    """Of profiles that are not usable, too small, missing, in all mixtures."""
    there = profile("small", accelerator={"type": "l4", "perNode": 1}) | {"broken": {"spec": {"node": {"cpu": said}}}}
    there |= profile("closed", provider="azure", pool="pool", fabric="azure-ib", accelerator={"type": "h100-80gb", "perNode": 8})
    for names in (["small"], ["none"], ["broken"], ["none", "broken"], ["small", "broken", "none"], ["closed", "none"]):
        spec = Spec.model_validate(job(compute={"profiles": names, "gpusPerWorker": 8})["spec"])
        found = profiles.chosen(spec, there, {}, NOW, "restricted")
        assert isinstance(found, Condition)
        yield found.message


def ended(said: str) -> Iterator[str]:
    """Of attempts that failed, and of the next one."""
    yield Failure("GTJ0213", "Infrastructure", "lost", said, said).line()
    yield JobError("GTJ0113", "data", where="a", why=said, how="look").line()
    two = profile("a") | profile("b")
    asked = job({**ONE, "plan": {"profile": "a"}}, compute={"profiles": ["a", "b"], "gpusPerWorker": 0})
    nowhere = {**pod(), "status": conditions(f"0/3 nodes are available: {said}")}
    for rayjobs, pods in (([child(created="2026-01-01T11:00:00Z")], [nowhere]), ([failed(message=said)], [])):
        decision = decided(Observed(asked, rayjobs, two, pods), at(30))
        assert decision.status is not None
        yield decision.status["message"]
        yield from (one["message"] for one in decision.status["conditions"])


@pytest.mark.parametrize("said", ENDINGS)
def test_no_message_has_two_full_stops(said: str) -> None:
    messages = [one for made in (stuck, refused, verdicts, chosen, ended) for one in made(said)]
    messages += [note(["spec.a", "spec.b"]), sentences(said, "that", f"{said}..", said)]
    assert len(messages) > 60
    # What others write twice within their own words, at the end of a message, is theirs.
    bad = [one for one in messages if re.search(r"\.\s*\.|\s\.(\s|$)|[…?!]\.", one.removesuffix(said.strip()))]
    assert bad == []
