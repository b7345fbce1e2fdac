"""Profiles on a real API server: it judges them as pydantic and the rules do, and takes the pods of whatever they let pass."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import PODS, PROFILES, RAYJOBS, Object
from gentrain_operator.profiles import misfit
from gentrain_operator.rayjob import rayjob
from tests.cluster.at_work import Bench
from tests.cluster.control_plane import ControlPlane
from tests.integration.test_crd_on_server import CHOICE, KEYS, leaves, values
from tests.integration.test_pods_on_server import templates
from tests.operator import pools
from trainjobs.api.job import Job
from trainjobs.api.parse import parse_profile
from trainjobs.api.profile import ProfileSpec

pytestmark = pytest.mark.slow

SCHEMA = ProfileSpec.model_json_schema(by_alias=True)
# Of the classes and accounts that a profile names, a server makes pods only where they exist.
LEAVES = [leaf for leaf in leaves(SCHEMA, SCHEMA["$defs"]) if leaf[0][-1] != "priorityClassName"]
# Nearly any two values of these contradict each other.
POOLED = (
    "provider",
    "pool",
    "capacity",
    "fabric",
    "networks",
    "claimTemplate",
    "fabricImage",
    "gracePeriodSeconds",
    "instanceType",
    "type",
)
DRAWN = [leaf for leaf in LEAVES for _ in range(1 if leaf[0][-1] in (*POOLED, "tolerations") else 4)]
RESOURCES = [
    *("nvidia.com/gpu", "amd.com/gpu", "a_B.c/d", "example.com/a_B.c", "kubernetes.io/gpu", "x.kubernetes.io/gpu", "requests.x.com/gpu"),
    *("gpu", "cpu", "memory", "hugepages-2Mi", "a/b", "a/", "/a", "a/b/c", "a." * 122 + "/b", "a" * 244 + "/b", "a" * 245 + "/b"),
    *("a/" + "b" * 63, "a/" + "b" * 64, "a b/c", "a\n"),
]
QUANTITIES = [
    "0",
    "0m",
    "1",
    "1m",
    "0.5",
    "0.0001",
    "7",
    "3Mi",
    "1k",
    "1.5P",
    "9" * 32,
    "9" * 30 + "Pi",
    "0.001m",
    "1Ki",
    "-1",
    "1e3",
    "1 ",
]
IMAGES = ["trainer", "a/b:c", "a@sha256:" + "0" * 64, " a", "a ", "a b", "a\t", "\u00a0a", "\u00e4", "a" * 512, "a" * 513]
GPUS = st.sampled_from([0, 1, 3, 8, 8, 16, 16])
TAINT_VALUES = st.sampled_from(["", "true", "a" * 63, "a" * 64, "a b", "-a"])


TOLERATIONS = st.fixed_dictionaries(
    {"key": st.one_of(*[st.sampled_from(KEYS[:6])] * 3, st.sampled_from(KEYS))},
    optional={
        "operator": st.one_of(*[st.sampled_from(["Exists", "Equal"])] * 6, st.sampled_from(["In", "", 1])),
        "value": st.one_of(*[st.sampled_from(["", "true", "a"])] * 3, TAINT_VALUES),
        "effect": st.one_of(*[st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"])] * 6, st.sampled_from(["Never"])),
    },
)
# What reading the schema does not bring to mind, by the last name of a path.
PARTICULAR: dict[str, st.SearchStrategy[Any]] = {
    "tolerations": st.lists(TOLERATIONS, max_size=3),
    "resource": st.sampled_from(RESOURCES),
    "cpu": st.sampled_from(QUANTITIES),
    "memory": st.sampled_from(QUANTITIES),
    "sharedMemory": st.sampled_from(QUANTITIES),
    "image": st.sampled_from(IMAGES),
}


@st.composite
def profiles(draw: st.DrawFn) -> Object:
    """The spec of a profile with up to three fields set, of which a good share is valid."""
    spec: Object = {"accelerator": {"perNode": draw(st.sampled_from([0, 1, 4, 8]))}}
    if draw(st.booleans()):
        spec = copy.deepcopy(pools.written(*draw(st.sampled_from(pools.ROWS))))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2, 2, 3]))):
        path, schema = draw(st.sampled_from(DRAWN))
        at: Any = spec
        for part in path[:-1]:
            at = at.setdefault(part, {})
        name = path[-1] if path[-1] != "*" else draw(st.one_of(*[st.sampled_from(KEYS[:6])] * 3, st.sampled_from(KEYS)))
        particular = PARTICULAR.get(path[-1])
        at[name] = draw(particular if particular is not None and draw(st.integers(0, 3)) else values(schema))
        if "price" in spec:
            spec["price"].setdefault("usdPerNodeHour", "1")
    if draw(st.integers(0, 29)) == 17:  # its ends are drawn often
        spec["unknown"] = 1
    return spec


def manifest(spec: Object) -> Object:
    return {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "metadata": {"name": "generated"}, "spec": spec}


def refusal(client: Client, spec: Object) -> str | None:
    try:
        client.create(PROFILES, None, manifest(spec), dry_run=True)
    except ApiError as error:
        if error.status not in (400, 422):
            raise
        return error.message
    return None


def made(profile: ProfileSpec, gpus: int, namespace: str) -> Object | None:
    """The RayJob of a job of one worker on the profile; None where the operator would say PlanDoesNotFit."""
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}, "compute": {"gpusPerWorker": gpus}}
    head: Object = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob"}
    job = {**head, "metadata": {"name": "job", "namespace": namespace, "uid": "u"}, "spec": spec}
    parsed = Job.model_validate({**head, "metadata": {"name": "job"}, "spec": spec}).spec
    return None if misfit(parsed, "generated", profile) else rayjob(job, parsed, profile, 1, "image")


@CHOICE
@given(spec=profiles(), gpus=GPUS)
def test_one_verdict_on_profiles_and_pods_that_the_server_takes(installed: ControlPlane, spec: Object, gpus: int) -> None:
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    try:
        profile, problems = parse_profile(manifest(spec))
        ours, theirs = [problem.error().line() for problem in problems], refusal(client, spec)
        assert (theirs is None) == (not ours), f"spec {json.dumps(spec)}\ngtj: {ours or 'valid'}\nserver: {theirs or 'valid'}"
        attempt = made(profile.spec, gpus, "default") if profile is not None and not ours else None
        if attempt is None:
            return
        client.create(RAYJOBS, "default", attempt, dry_run=True)
        for template in templates(attempt):
            template["spec"].pop("serviceAccountName", None)  # which would have to exist
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "pod"}, "spec": template["spec"]}
            client.create(PODS, "default", pod, dry_run=True)
    finally:
        client.close()


def test_a_good_share_of_the_generated_profiles_makes_pods() -> None:
    """Were nearly all of one kind, the property above would say little."""
    verdicts: list[str] = []

    @CHOICE
    @given(spec=profiles(), gpus=GPUS)
    def count(spec: Object, gpus: int) -> None:
        profile, problems = parse_profile(manifest(spec))
        good = profile is not None and not problems
        verdicts.append("refused" if not good else "pods" if profile and made(profile.spec, gpus, "n") else "misfit")

    count()
    for verdict in ("refused", "pods", "misfit"):
        assert 0.1 < verdicts.count(verdict) / len(verdicts) < 0.7, verdict


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("place", ["selector", "head", "toleration"])
def test_every_nasty_key_is_judged_alike(installed: ControlPlane, place: str, key: str) -> None:
    places: dict[str, Object] = {
        "selector": {"selector": {key: "a"}},
        "head": {"head": {"selector": {key: "a"}}},
        "toleration": {"tolerations": [{"key": key}]},
    }
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    ours, theirs = parse_profile(manifest(places[place]))[1], refusal(client, places[place])
    client.close()
    assert (theirs is None) == (not ours), theirs


def test_a_toleration_in_the_short_form_is_what_kubernetes_means(installed: ControlPlane) -> None:
    """The server is asked what it makes of a pod with the short form, and of one with what we render."""
    short = {"key": "gpu", "value": "true"}
    profile, problems = parse_profile(manifest({"tolerations": [short]}))
    assert profile is not None
    assert not problems
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    try:
        attempt = made(profile.spec, 0, "default")
        assert attempt is not None
        for template in templates(attempt):
            pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
            ours = client.create(PODS, "default", pod, dry_run=True)["spec"]["tolerations"]
            pod["spec"]["tolerations"] = [short]
            theirs = client.create(PODS, "default", pod, dry_run=True)["spec"]["tolerations"]
            written = [{"operator": "Equal", **one} for one in theirs if one["key"] == "gpu"]
            assert [one for one in ours if one["key"] == "gpu"] == written == [{"key": "gpu", "operator": "Equal", "value": "true"}]
        said = refusal(client, {"tolerations": [{**short, "operator": "Exists"}]})
        assert said is not None
        assert "GTJ0108 operator Exists has no value; a value alone means Equal" in said
    finally:
        client.close()


def test_a_worker_larger_than_a_node_waits_and_says_so(bench: Bench) -> None:
    name, spec = f"small-{bench.namespace}", {"accelerator": {"perNode": 4}}
    bench.client.create(PROFILES, None, {**manifest(spec), "metadata": {"name": name}})
    bench.apply(compute={"profiles": [name], "gpusPerWorker": 8, "workers": 1})
    bench.until(lambda: bench.reason("Accepted") == "PlanDoesNotFit")
    assert (bench.status()["phase"], bench.kuberay.rayjobs()) == ("Pending", {})
    told = next(one for one in bench.status()["conditions"] if one["type"] == "Accepted")["message"]
    assert f"wants 8 GPUs (compute.gpusPerWorker), and a node of ComputeProfile {name} has 4 (accelerator.perNode)" in told
    bench.client.merge(PROFILES, None, name, {"spec": {"accelerator": {"perNode": 8}}})
    worker = bench.rayjob("job-a1")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "8"
