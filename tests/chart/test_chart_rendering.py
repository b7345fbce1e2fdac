"""The chart without a cluster: it lints, refuses wrong values, and every switch does what it says and no more."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from gentrain_operator.main import LEASE_NAME
from gentrain_operator.names import JOB_LABEL, labels
from gentrain_operator.rayjob import PORT
from tests.chart import install
from tests.chart.helm import CHART, NAMESPACE, RELEASE, helm, kinds, objects, rendered, text
from trainjobs.api.job import Job
from trainjobs.api.profile import Profile
from trainjobs.api.rules import check

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs")]

DEFAULT = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Deployment",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def test_lint() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART)).stdout


def test_defaults() -> None:
    assert kinds() == DEFAULT


# (switch, kinds it takes away, kinds it adds)
SWITCHES: list[tuple[str, set[str], set[str]]] = [
    ("crds.enabled=false", {"CustomResourceDefinition"}, set()),
    ("rbac.create=false", {"ClusterRoleBinding", "Role", "RoleBinding"}, set()),
    ("rbac.create=false,rbac.userRoles=false", {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}, set()),
    ("serviceAccount.create=false", {"ServiceAccount"}, set()),
    ("podDisruptionBudget.enabled=false", {"PodDisruptionBudget"}, set()),
    ("networkPolicy.enabled=false", {"NetworkPolicy"}, set()),
    ("admissionPolicy.enabled=false", {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}, set()),
    ("metrics.serviceMonitor.enabled=true", set(), {"ServiceMonitor"}),
    ("metrics.rules.enabled=true", set(), {"PrometheusRule"}),
    ("metrics.dashboards.enabled=true", set(), {"ConfigMap"}),
    ("profiles.cpu.node.cpu=4", set(), {"ComputeProfile"}),
]


@pytest.mark.parametrize(("switch", "without", "more"), SWITCHES, ids=[one[0] for one in SWITCHES])
def test_switches(switch: str, without: set[str], more: set[str]) -> None:
    assert kinds(f"--set={switch}") == (DEFAULT - without) | more


REFUSED = [
    "replicas=two",
    "replicas=-1",
    "webhook.url=https://hooks.example",
    "replica=3",
    "image.tga=1",
    "image.pullPolicy=Sometimes",
    "crds.keep=maybe",
    "watchNamespaces={Team_A}",
    "watchNamespaces={a,a}",
    "watchNamespaces=a",
    "watchNamespaces={a b}",
    "admissionPolicy.serviceAccounts={Not A Name}",
    "networkPolicy.jobs.namespaces={Team_A}",
    "test.timeout=soon",
    "networkPolicy.apiServerPorts={0}",
    "metrics.serviceMonitor.interval=often",
    "profiles.Bad_Name.node.cpu=4",
    "resources.limits.memory=lots",
]


@pytest.mark.parametrize("value", REFUSED)
def test_the_schema_refuses(value: str) -> None:
    done = helm("template", str(CHART), f"--set={value}", check=False)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_every_value_is_in_the_schema() -> None:
    """A value without a schema is one whose typing error nobody notices."""

    def missing(values: Any, schema: Any, path: str) -> list[str]:
        if not isinstance(values, dict) or "properties" not in schema:
            return []
        properties = schema["properties"]
        here = [f"{path}{key}" for key in values if key not in properties]
        inner = [one for key in values if key in properties for one in missing(values[key], properties[key], f"{path}{key}.")]
        return here + inner

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert missing(values, schema, "") == []
    assert set(schema["properties"]) - {"global"} == set(values)


def test_every_value_is_used() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))
    for key in yaml.safe_load((CHART / "values.yaml").read_text()):
        assert f".Values.{key}" in templates, key


def test_every_value_is_in_the_reference() -> None:
    page = (CHART.parents[1] / "docs" / "reference" / "chart.md").read_text()
    for key in yaml.safe_load((CHART / "values.yaml").read_text()):
        assert re.search(rf"`{key}[.`]", page), key


@pytest.mark.parametrize("keep", [True, False])
def test_definitions_are_kept_or_not_and_otherwise_as_generated(keep: bool) -> None:
    found = {name: one for (kind, name), one in objects(f"--set=crds.keep={str(keep).lower()}").items() if kind.startswith("Custom")}
    generated = [yaml.safe_load(path.read_text()) for path in (CHART.parents[1] / "manifests" / "crd").glob("*.yaml")]
    assert len(found) == len(generated) == 2
    for definition in generated:
        rendered = found[definition["metadata"]["name"]]
        assert rendered["spec"] == definition["spec"]
        assert (rendered["metadata"].get("annotations") == {"helm.sh/resource-policy": "keep"}) is keep


def test_watched_namespaces_take_a_role_each() -> None:
    found = rendered("--set=watchNamespaces={red,blue}")
    for kind in ("Role", "RoleBinding"):
        where = {one["metadata"]["namespace"] for one in found if one["kind"] == kind and one["metadata"]["name"] == "gentrain"}
        assert where == {"red", "blue"}
    (role,) = [one for one in found if one["kind"] == "ClusterRole" and one["metadata"]["name"] == f"{NAMESPACE}-gentrain"]
    assert [rule["resources"] for rule in role["rules"]] == [["computeprofiles"], ["nodes"]], "which belong to no namespace"
    (deployment,) = [one for one in found if one["kind"] == "Deployment"]
    assert "--namespace=red,blue" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    (binding,) = [one for one in found if one["kind"] == "ValidatingAdmissionPolicyBinding"]
    (expression,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["red", "blue"]


def test_watched_namespaces_may_be_written_with_white_space_and_name_one_at_least() -> None:
    plain = text("--set=watchNamespaces={red,blue}")
    for written in ('[" red", "blue "]', '["red", "", "blue", " red"]'):
        assert text(f"--set-json=watchNamespaces={written}") == plain
    assert text("--set=watchNamespaces={red, blue}") == plain
    nothing = helm("template", RELEASE, str(CHART), '--set-json=watchNamespaces=[" "]', check=False)
    assert nothing.returncode != 0
    assert "watchNamespaces names no namespace" in nothing.stderr


def test_the_policy_around_jobs_lets_in_who_has_to() -> None:
    """Its selectors are held against the labels that the operator really gives, and the ports that the pods really have."""
    found = rendered("--set=watchNamespaces={red},networkPolicy.jobs.namespaces={red,blue}")
    policies = [one for one in found if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "gentrain-jobs"]
    assert [one["metadata"]["namespace"] for one in policies] == ["red", "blue"]
    (deployment,) = [one for one in found if one["kind"] == "Deployment"]
    job = {"metadata": {"name": "job", "namespace": "red", "uid": "u"}, "apiVersion": "v", "kind": "k"}
    pod = labels(job, 1)
    for policy in policies:
        (key,) = policy["spec"]["podSelector"]["matchExpressions"]
        assert (key["key"] in pod, key["operator"]) == (True, "Exists")
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        each_other, operator, kuberay = policy["spec"]["ingress"]
        assert each_other["from"][0]["podSelector"]["matchExpressions"] == [key]
        assert "ports" not in each_other
        (peer,) = operator["from"]
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
        assert peer["podSelector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        assert [one["port"] for one in operator["ports"]] == [PORT]
        assert [one["port"] for one in kuberay["ports"]] == [8265]
    assert not [one for one in rendered() if one["metadata"]["name"] == "gentrain-jobs"]


def test_what_artifact_hub_shows_is_true() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    shown = {name: yaml.safe_load(annotations[f"artifacthub.io/{name}"]) for name in ("crds", "crdsExamples", "images", "changes")}
    generated = [yaml.safe_load(path.read_text()) for path in (CHART / "files" / "crd").glob("*.yaml")]
    assert {one["name"]: one["kind"] for one in shown["crds"]} == {
        one["metadata"]["name"]: one["spec"]["names"]["kind"] for one in generated
    }
    job, profile = shown["crdsExamples"]
    assert not check(Job.model_validate(job))
    Profile.model_validate({key: value for key, value in profile.items() if key != "metadata"})
    container = objects()["Deployment", "gentrain"]["spec"]["template"]["spec"]["containers"][0]
    assert {one["image"] for one in shown["images"]} == {container["image"], container["args"][0].split("=")[1]}
    assert shown["changes"]


def test_nobody_gets_what_the_design_forbids() -> None:
    for one in objects().values():
        for rule in one.get("rules", ()):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"secrets", "pods/exec", "roles", "clusterroles"} & set(rule["resources"])
            assert not {"impersonate", "escalate", "bind"} & set(rule["verbs"])


def test_the_chart_and_the_code_agree() -> None:
    found = objects()
    assert found["Role", "gentrain-lease"]["rules"][1]["resourceNames"] == [LEASE_NAME]
    *_, progress = found["NetworkPolicy", "gentrain"]["spec"]["egress"]
    assert progress["ports"][0]["port"] == PORT
    assert progress["to"][0]["podSelector"]["matchExpressions"][0]["key"] == JOB_LABEL


def test_what_labels_and_images_are_given() -> None:
    found = objects("--set=podLabels.team=a,image.repository=r/o,image.tag=v7,trainerImage=r/t:8,fullnameOverride=other")
    template = found["Deployment", "other"]["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "a"
    container = template["spec"]["containers"][0]
    assert (container["image"], container["args"][0]) == ("r/o:v7", "--trainer-image=r/t:8")


def test_pods_run_as_whom_the_values_say() -> None:
    def given(*options: str) -> list[str]:
        arguments = objects(*options)["Deployment", "gentrain"]["spec"]["template"]["spec"]["containers"][0]["args"]
        return [one for one in arguments if one.startswith("--run-as")]

    assert given() == ["--run-as=1000:1000"]
    assert given("--set=runAs.user=1000660000,runAs.group=0") == ["--run-as=1000660000:0"]
    assert given('--set-json=runAs={"user":null,"group":null}') == ["--run-as="]


def test_a_digest_is_taken_instead_of_the_tag() -> None:
    digest = "sha256:" + "0a" * 32
    images = f"image.repository=r/o,image.tag=v7,image.digest={digest},trainerImage=r/t@{digest}"
    container = objects(f"--set={images}")["Deployment", "gentrain"]["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["args"][0]) == (f"r/o@{digest}", f"--trainer-image=r/t@{digest}")
    assert "image" in helm("template", str(CHART), "--set=image.digest=sha256:short", check=False).stderr


def test_labels_of_a_user_do_not_break_the_selector() -> None:
    deployment = objects(r"--set=podLabels.app\.kubernetes\.io/name=mine")["Deployment", "gentrain"]["spec"]
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()


def test_names_of_any_length() -> None:
    for (kind, name), one in objects(f"--set=fullnameOverride={'n' * 63}").items():
        limit = 253 if kind.startswith(("Cluster", "Custom", "ValidatingAdmission")) else 63
        assert len(name) <= limit, one


def test_the_rendering_is_the_same_every_time() -> None:
    assert text() == text()


def test_the_notes_name_what_is_missing() -> None:
    shown = helm("install", "x", str(CHART), "--dry-run=client", "--set=profiles.b.provider=aws,profiles.a.provider=gcp").stdout
    notes = shown.split("NOTES:")[1]
    assert len(re.findall(r"^  (kubectl|helm|gtj) ", notes, re.MULTILINE)) == 4
    assert "KubeRay is not on this cluster" in notes
    assert "The profiles (a, b) are not made yet" in notes


def test_the_manifests_without_helm_are_the_charts() -> None:
    """Stale? `python -m tests.chart.install` writes them."""
    assert install.PATH.read_text() == install.manifests()
    assert install.RESTRICTED.read_text() == install.policy()
    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(install.PATH.read_text())}
    assert set(made) == {("Namespace", NAMESPACE), *objects("--set=crds.enabled=false")}


def test_the_webhook_comes_from_a_secret_and_no_address_is_rendered() -> None:
    (plain,) = [one for one in rendered() if one["kind"] == "Deployment"]
    assert "WEBHOOK" not in json.dumps(plain)
    found = rendered("--set=webhook.secretName=hooks,webhook.key=slack,webhook.ports={8443}")
    (deployment,) = [one for one in found if one["kind"] == "Deployment"]
    variables = {one["name"]: one for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    wanted = {"secretKeyRef": {"name": "hooks", "key": "slack", "optional": True}}
    assert variables["GENTRAIN_WEBHOOK_URL"]["valueFrom"] == wanted
    assert variables["GENTRAIN_WEBHOOK_SECRET"]["value"] == "hooks"
    policy = next(one for one in found if one["kind"] == "NetworkPolicy" and "egress" in one["spec"])
    assert {"ports": [{"port": 8443, "protocol": "TCP"}]} in policy["spec"]["egress"]
