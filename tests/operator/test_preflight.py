"""The preflight as decisions: which pod, what its end means, how long that is remembered. And the step that makes and takes away pods."""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

import pytest

from gentrain_operator import preflight
from gentrain_operator.decide import Decision, Observed, decide
from gentrain_operator.forerunner import Forerunner
from gentrain_operator.identity import DEFAULT
from gentrain_operator.kube.apply import Taken
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import CONFIGMAPS, PODS, Object, Resource
from gentrain_operator.names import preflight_name
from gentrain_operator.refusals import Refused
from gentrain_operator.served import Served
from tests.operator.test_decide import IMAGE, NOW, at, child, job, profile, reasons
from trainjobs.api.crd import structural
from trainjobs.api.job import Spec
from trainjobs.api.status import Status

PASSED = {"passed": True, "found": ["1797 images, 8x8 grey", "s3://runs/faces can be written as arn:aws:iam::1:role/trainer"]}
REFUSED = {
    "passed": False,
    "code": "GTJ0112",
    "what": "checkpoints cannot be written",
    "where": "s3://runs/faces",
    "why": "s3:PutObject was refused to arn:aws:iam::1:role/other",
    "how": "give it that right",
}


def made(**spec: Any) -> Object:
    """The preflight pod of such a job."""
    whole = job(**spec)
    return preflight.pod(whole, decide(Observed(whole), NOW, IMAGE).create[1])


def ended(message: str, code: int = 0, reason: str = "Completed", phase: str = "Succeeded") -> Object:
    terminated = {"exitCode": code, "reason": reason, "message": message}
    return {"phase": phase, "containerStatuses": [{"name": "preflight", "state": {"terminated": terminated}}]}


def waits(reason: str, message: str) -> Object:
    return {"containerStatuses": [{"name": "preflight", "state": {"waiting": {"reason": reason, "message": message}}}]}


def nowhere(message: str) -> Object:
    return {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": message}]}


def test_the_pod_is_the_head_without_its_ports_secrets_and_access() -> None:
    wishes = {
        "serviceAccountName": "trainer",
        "imagePullSecrets": ["registry"],
        "env": [{"name": "KEY", "secretKeyRef": {"name": "s", "key": "k"}}],
        "files": [{"secret": "token", "mountPath": "/run/hf"}],
    }
    whole = job(pod=wishes, compute={"gpusPerWorker": 0, "workers": "1-2"})
    rayjob = decide(Observed(whole), NOW, IMAGE).create[1]
    pod, theirs = preflight.pod(whole, rayjob), rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (container,) = pod["spec"]["containers"]
    for same in ("securityContext", "serviceAccountName", "imagePullSecrets", "volumes"):
        assert pod["spec"][same] == theirs[same]
    for same in ("image", "resources", "securityContext", "volumeMounts"):
        assert container[same] == theirs["containers"][0][same]
    assert container["command"] == ["python", "-m", "trainjobs.cli.preflight", "/etc/gentrain/job.json"]
    assert {one["name"] for one in theirs["containers"][0]["env"]} - {one["name"] for one in container["env"]} == {"GENTRAIN_NONCE"}
    assert "ports" not in container
    assert theirs["automountServiceAccountToken"]
    assert not pod["spec"]["automountServiceAccountToken"]
    assert not any("gpu" in name for name in container["resources"]["limits"])
    assert {"gentrain.dev/job", "gentrain.dev/attempt"}.isdisjoint(pod["metadata"]["labels"]), "it is no pod of an attempt"


def test_every_change_that_may_change_the_answer_is_another_preflight() -> None:
    first = preflight.key(made())
    assert preflight.key(made()) == first
    others = [
        made(pod={"image": "other:1"}),
        made(pod={"serviceAccountName": "other"}),
        made(data={"source": "s3://data/faces"}),
        made(checkpoints={"uri": "s3://runs/faces"}),
        made(pod={"env": [{"name": "AWS_REGION", "value": "eu-west-1"}]}),
    ]
    assert len({first, *map(preflight.key, others)}) == 6


@pytest.mark.parametrize(
    ("status", "passed", "said"),
    [
        (ended(json.dumps(PASSED)), True, "1797 images, 8x8 grey; s3://runs/faces can be written as"),
        (ended(json.dumps(REFUSED), 1, "Error", "Failed"), False, "GTJ0112 checkpoints cannot be written (s3://runs/faces): s3:PutObject"),
        (ended(json.dumps({**REFUSED, "code": "rm -rf"}), 1), False, "GTJ0306 checkpoints cannot be written"),
        (ended("Traceback\n  File\nModuleNotFoundError: No module named 'trainjobs.cli.preflight'\n", 1), True, "No module named"),
        (ended('exec: "python": executable file not found in $PATH', 128, "StartError", "Failed"), False, "GTJ0204 the image cannot run"),
        (ended("", 137, "OOMKilled", "Failed"), True, "GTJ0306 the preflight ended without a verdict"),
        (ended("[" * 4000, 1), True, "GTJ0306"),
        (ended('{"passed": "yes"}', 0), True, "GTJ0306"),
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}, True, "The node was low on memory"),
        # A sidecar that a webhook has put in runs on.
        ({**ended(json.dumps(PASSED)), "phase": "Running"}, True, "1797 images"),
    ],
)
def test_what_an_end_means(status: Object, passed: bool, said: str) -> None:
    found = preflight.verdict({**made(), "status": status})
    assert found is not None
    assert (found.passed, said in found.said) == (passed, True), found


@pytest.mark.parametrize("status", [{}, {"phase": "Pending"}, {"containerStatuses": [{"name": "preflight", "state": {}}]}])
def test_no_verdict_before_the_end(status: Object) -> None:
    assert preflight.verdict({**made(), "status": status}) is None


def test_a_verdict_is_remembered_for_a_day_and_a_refusal_asked_for_ever_less_often() -> None:
    status: Object = {}
    waits = []
    for _ in range(8):
        status = {"preflight": preflight.kept(status, "k", preflight.Verdict(False, "GTJ0112 no"), NOW)}
        waits.append(preflight.pause(status["preflight"], NOW))
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    assert preflight.pause(status["preflight"], at(5)) == 0
    assert preflight.remembered(status, "k", at(1439)) is not None
    assert preflight.remembered(status, "k", at(1441)) is None
    assert preflight.remembered(status, "other", NOW) is None
    assert preflight.kept(status, "other", preflight.Verdict(False, "x"), NOW)["tries"] == 1
    assert preflight.pause({**status["preflight"], "at": "2027-01-01T00:00:00Z"}, NOW) <= 300, "the clock was set back"


class World:
    """An API server of pods, ConfigMaps and events, which may refuse to create."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.events: list[Object] = []
        self.refuses: ApiError | None = None
        self.made = 0

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        if (resource.kind, name) not in self.objects:
            raise ApiError(404, "NotFound", f'{resource.plural} "{name}" not found')
        return self.objects[resource.kind, name]

    def list(self, resource: Resource, namespace: str | None = None, **selectors: Any) -> Object:
        return {"items": self.events}

    def create(self, resource: Resource, namespace: str | None, body: Object, *, manager: str = "") -> Object:
        if resource is PODS and self.refuses is not None:
            raise self.refuses
        if (resource.kind, body["metadata"]["name"]) in self.objects:
            raise ApiError(409, "AlreadyExists", "exists")
        self.made += resource is PODS
        metadata = {**body["metadata"], "uid": f"p{self.made}", "creationTimestamp": "2026-01-01T12:00:00Z"}
        self.objects[resource.kind, body["metadata"]["name"]] = copy.deepcopy({**body, "metadata": metadata})
        return body

    def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str) -> None:
        self.objects.pop((resource.kind, name), None)

    def pod(self) -> Object | None:
        return self.objects.get((PODS.kind, preflight_name("job")))

    def says(self, **status: Any) -> None:
        pod = self.pod()
        assert pod is not None
        pod["status"] = status

    def configmaps(self) -> list[str]:
        return [name for kind, name in self.objects if kind == CONFIGMAPS.kind]


class Desk:
    """One job, looked at again and again with what the last look wrote."""

    def __init__(self, **spec: Any) -> None:
        self.world, self.job, self.profiles = World(), job(**spec), {}
        self.rayjobs: tuple[Object, ...] = ()

    def look(self, now: datetime.datetime = NOW, *, restarted: bool = False) -> Decision:
        seen = Observed(self.job, self.rayjobs, self.profiles)
        forerunner = Forerunner(self.world, enabled=True, run_as=DEFAULT)  # type: ignore[arg-type]
        decision = forerunner.before(seen, decide(seen, now, IMAGE), now)
        if decision.status is not None and not restarted:
            self.job = {**self.job, "status": decision.status}
        return decision


def test_a_good_job_begins_two_looks_after_its_pod_has_ended() -> None:
    desk = Desk()
    first = desk.look()
    assert (first.create, first.again) == ((), 1.0)
    assert reasons(first) == {"ResourcesReady": "False Preflight"}
    assert desk.look().create == ()
    assert desk.world.made == 1
    desk.world.says(**ended(json.dumps(PASSED)))
    told = desk.look()
    assert reasons(told) == {"Accepted": "True Accepted"}
    assert desk.world.pod() is not None, "the verdict is written before its pod goes"
    begun = desk.look(at(0.01))
    assert [one["kind"] for one in begun.create] == ["ConfigMap", "RayJob"]
    assert desk.world.pod() is None
    assert desk.world.configmaps() == [begun.create[0]["metadata"]["name"]], "which the attempt reads"
    assert begun.status is not None
    assert begun.status["preflight"]["passed"]
    assert told.again is not None
    assert told.again < 1


def test_an_operator_that_dies_between_any_two_steps_goes_on() -> None:
    desk = Desk()
    desk.look(restarted=True)  # made, and nothing written
    desk.look()
    desk.world.says(**ended(json.dumps(PASSED)))
    desk.look(restarted=True)  # read, and nothing written
    desk.look()
    assert desk.look(restarted=True).create  # deleted, and the RayJob not made
    assert desk.look().create
    assert desk.world.made == 1


def test_a_refusal_is_shown_asked_for_again_and_heals() -> None:
    desk = Desk(checkpoints={"uri": "s3://runs/faces"})
    desk.look()
    desk.world.says(**ended(json.dumps(REFUSED), 1, "Error", "Failed"))
    told = desk.look()
    assert reasons(told) == {"Accepted": "False PreflightFailed"}
    assert told.status is not None
    assert told.status["phase"] == "Pending"
    assert told.status["message"].startswith("GTJ0112 checkpoints cannot be written (s3://runs/faces): s3:PutObject was refused to arn")
    waits = desk.look(at(0.05))
    assert desk.world.pod() is None
    assert waits.create == ()
    assert waits.again == pytest.approx(7)
    again = desk.look(at(0.2))
    assert desk.world.made == 2
    assert reasons(again) == {"Accepted": "False PreflightFailed"}, "what was found still stands while it is looked at again"
    desk.world.says(**ended(json.dumps(PASSED)))
    desk.look(at(0.3))
    assert desk.look(at(0.31)).create


def test_a_spec_that_was_mended_is_looked_at_at_once() -> None:
    desk = Desk(checkpoints={"uri": "s3://wrong/faces"})
    desk.look()
    wrong = desk.world.configmaps()
    desk.world.says(**ended(json.dumps(REFUSED), 1))
    desk.look()
    desk.job["spec"] = {**desk.job["spec"], "checkpoints": {"uri": "s3://runs/faces"}}
    desk.look()  # the old pod goes, with what it read
    assert desk.world.pod() is None
    assert desk.world.configmaps() == []
    desk.look()
    assert desk.world.made == 2
    assert wrong != desk.world.configmaps()


@pytest.mark.parametrize(
    ("status", "events", "reason", "said"),
    [
        (
            waits("ImagePullBackOff", "no such tag"),
            [],
            "ImagePullFailed",
            "GTJ0204 preflight cannot pull its image: no such tag",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "preflight", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s"'}}}
                ]
            },
            [],
            "SecretNotFound",
            'GTJ0111 secret "s". It goes on',
        ),
        (
            {},
            [{"reason": "FailedMount", "note": 'MountVolume.SetUp failed for volume "files-0" : secret "token" not found'}],
            "SecretNotFound",
            'GTJ0111 MountVolume.SetUp failed for volume "files-0" : secret "token" not found',
        ),
        ({}, [{"reason": "FailedMount", "note": "timed out waiting"}], "Preflight", "looks at image"),
        (
            nowhere('persistentvolumeclaim "runs" not found'),
            [],
            "SecretNotFound",
            'GTJ0111 pod job-preflight fits no node: persistentvolumeclaim "runs" not found',
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}
                ]
            },
            [],
            "Unschedulable",
            "GTJ0202 pod job-preflight fits no node: 0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            nowhere("0/3 nodes are available"),
            [{"reason": "TriggeredScaleUp", "note": "pool 1->2", "reportingController": "cluster-autoscaler"}],
            "ScalingUp",
            "a node for pod job-preflight is on its way",
        ),
    ],
)
def test_a_pod_that_does_not_run_says_why_and_no_rayjob_is_made(status: Object, events: list[Object], reason: str, said: str) -> None:
    desk = Desk()
    desk.look()
    desk.world.says(phase="Pending", **status)
    desk.world.events = events
    for minutes in (0, 5, 60, 600):
        decision = desk.look(at(minutes))
        assert decision.create == ()
        assert decision.again is not None
        assert decision.again <= 10
    assert decision.status is not None
    assert said in decision.status["message"]
    kind = "ResourcesReady" if reason in ("Preflight", "ScalingUp") else "Accepted"
    assert reasons(decision) == {kind: f"False {reason}"}


def test_before_an_autoscaler_has_had_its_say_its_pod_is_not_said_to_fit_no_node() -> None:
    refused = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3", "lastTransitionTime": f"{NOW:%Y-%m-%dT%H:%M:%SZ}"}
    for cloud, grace in (({"provider": "azure", "pool": "nap"}, 60), ({}, 5)):
        desk = Desk(compute={"gpusPerWorker": 0, "profiles": ["a"]})
        desk.profiles = profile("a", **cloud)
        desk.look()
        desk.world.says(phase="Pending", conditions=[refused])
        early = desk.look(NOW + datetime.timedelta(seconds=grace - 1))
        assert reasons(early) == {"ResourcesReady": "False ScalingUp"}
        assert early.status is not None
        assert early.status["message"].startswith("pod job-preflight waits for a node since ")
        assert reasons(desk.look(NOW + datetime.timedelta(seconds=grace))) == {"Accepted": "False Unschedulable"}


def test_a_profile_whose_nodes_do_not_take_the_pod_gives_way_to_the_next() -> None:
    desk = Desk(compute={"gpusPerWorker": 0, "profiles": ["full", "free"]})
    desk.profiles = {**profile("full", head={"selector": {"pool": "a"}}), **profile("free", head={"selector": {"pool": "b"}})}
    desk.look()
    desk.world.says(phase="Pending", conditions=[{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3"}])
    assert reasons(desk.look(at(9))) == {"Accepted": "False Unschedulable"}
    moved = desk.look(at(11))
    assert moved.status is not None
    assert [one["name"] for one in moved.status["profiles"]] == ["full"]
    desk.look(at(11.1))
    pod = desk.world.pod()
    assert pod is not None
    assert pod["spec"]["nodeSelector"] == {"pool": "b"}


@pytest.mark.parametrize(
    ("message", "reason", "said"),
    [
        (
            'pods "job-preflight" is forbidden: error looking up service account team/trainer: serviceaccount "trainer" not found',
            "AccountNotFound",
            "GTJ0111 the service account of the preflight pod does not exist: trainer (",
        ),
        ('pods "job-preflight" is forbidden: violates PodSecurity "restricted:latest": x', "PodsForbidden", "GTJ0303"),
        ('pods "job-preflight" is forbidden: exceeded quota: q, requested: pods=1', "QuotaExceeded", "GTJ0203"),
        ('admission webhook "no.example.org" denied the request: not here', "AdmissionDenied", "GTJ0305"),
    ],
)
def test_a_pod_that_the_server_refuses(message: str, reason: str, said: str) -> None:
    desk = Desk()
    desk.world.refuses = ApiError(403, "Forbidden", message)
    with pytest.raises(Refused) as refused:
        desk.look()
    assert (refused.value.refusal.reason, refused.value.refusal.message[: len(said)]) == (reason, said)


def test_an_operator_that_may_not_create_pods_says_so_and_goes_on() -> None:
    desk = Desk()
    desk.world.refuses = ApiError(403, "Forbidden", 'pods is forbidden: User "x" cannot create resource "pods" in API group ""')
    told = desk.look()
    assert reasons(told) == {"Accepted": "True PreflightInconclusive"}
    assert told.status is not None
    assert told.status["preflight"]["said"].startswith("GTJ0306")
    assert desk.look().create


def test_somebody_elses_pod_is_left_alone() -> None:
    desk = Desk()
    desk.world.objects[PODS.kind, "job-preflight"] = {"metadata": {"name": "job-preflight", "uid": "theirs"}, "spec": {}}
    with pytest.raises(Taken, match="is not this job's"):
        desk.look()
    assert desk.world.pod() is not None


def test_a_job_that_has_or_had_a_rayjob_is_never_looked_at() -> None:
    for status, rayjobs in (({"attempts": 1, "ended": 1}, ()), ({"attempts": 1}, (child(),)), (None, (child(),))):
        desk = Desk()
        desk.rayjobs, desk.job = rayjobs, {**desk.job, **({"status": status} if status else {})}
        desk.look()
        assert desk.world.made == 0


def test_preflight_false_begins_at_once_and_takes_away_what_was_begun() -> None:
    assert Desk(preflight=False).look().create
    desk = Desk()
    desk.look()
    desk.job["spec"]["preflight"] = False
    assert desk.look().create
    assert desk.world.pod() is None


@pytest.mark.parametrize("change", [{"suspend": True}, {"budget": {"maxUSD": "5"}}])
def test_the_pod_goes_when_the_job_is_not_to_begin(change: Object) -> None:
    desk = Desk()
    desk.look()
    desk.job["spec"].update(change)
    assert desk.look().create == ()
    assert desk.world.pod() is None


def test_an_older_definition_that_keeps_no_verdicts_begins_without() -> None:
    desk = Desk()
    seen = Observed(desk.job)
    forerunner = Forerunner(desk.world, enabled=True, run_as=DEFAULT, keeps=lambda name: name != "preflight")  # type: ignore[arg-type]
    assert forerunner.before(seen, decide(seen, NOW, IMAGE), NOW).create
    assert desk.world.made == 0

    def older() -> Object:
        schema = copy.deepcopy(structural(Status))
        del schema["properties"]["preflight"]
        return {"properties": {"spec": structural(Spec), "status": schema}}

    served = Served(older)
    assert served.keeps("preflight"), "nothing is known yet"
    served.look()
    assert (served.keeps("preflight"), served.keeps("phase")) == (False, True)


def test_names_fit_whatever_the_job_is_called() -> None:
    names = [preflight_name(name) for name in ("job", "a" * 253, "a" * 252 + "b", "web.example.org", "1job")]
    assert names[0] == "job-preflight"
    assert all(len(name) <= 63 and "." not in name for name in names)
    assert len(set(names)) == 5
