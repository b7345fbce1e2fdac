"""The custom resource definitions on a real API server: they install, explain themselves, and judge specs as `gtj validate` does.

Deliberate differences between the two stand in docs/concepts/validation.md; the generated specs contain none of them.
"""

from __future__ import annotations

import copy
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import JOBS
from tests.cluster.control_plane import ControlPlane
from trainjobs.api.job import FAMILIES, Spec
from trainjobs.api.parse import parse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
EXAMPLES = int(os.environ.get("GENTRAIN_EXAMPLES", "100"))  # the campaign runs 1,000 or more, each time others
CHOICE = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES <= 100, database=None)

BASES: dict[str, dict[str, Any]] = {
    "gan": {"gan": {"loss": {"type": "wgan-gp"}}, "data": {"source": "builtin:digits"}},
    "points": {
        "gan": {"generator": {"architecture": "mlp"}, "discriminator": {"architecture": "mlp"}},
        "data": {"source": "builtin:ring"},
        "evaluation": {"metrics": ["modes"]},
    },
    "vae": {"vae": {}, "data": {"source": "file:///data/faces"}},
    "diffusion": {"diffusion": {}, "data": {"source": "s3://bucket/faces", "images": {"size": 16}}},
    "language": {"language": {}, "data": {"source": "builtin:stdlib-text"}},
    "adapter": {"language": {"base": {"source": "hf://org/model"}, "adapter": {}}, "data": {"source": "builtin:stdlib-text"}},
    "custom": {"custom": {"objective": "mine.gan:build"}, "data": {"source": "builtin:shapes"}},
}
# What reading a pattern does not bring to mind.
STRINGS = [
    *("", " ", "x", "latest", "none", "builtin:digits", "builtin:ring", "builtin:stdlib-text", "builtin:digit", "builtin:"),
    *("s3://bucket", "s3://bucket/", "s3://bucket/a", "s3://bucket//a", "s3:///a", "s3://u:p@bucket/a", "s3://bucket/a@b", "s3://b/a?x=1"),
    *(
        "gs://b/a#b",
        "gs://b/../a",
        "gs://b/..",
        "gs://../a",
        "gs://b/..a",
        "az://b/a b",
        "az://b/a\tb",
        "az://b/a\u00a0b",
        "az://b/a\u200bb",
    ),
    *("file:///", "file:///a", "file:////a", "file://host/a", "file://", "file:///a/../b", "file:///a@b", "hf://a/b", "hf://", "s4://b/a"),
    *(
        "file:///a%20b",
        "file:///a/%2e%2E/b",
        "file:///a/.%2e",
        "file:///a%00",
        "file:///a%2Fb",
        "file:///100%",
        "s3://b/%2e%2e",
        "s3://b/a%2Fb",
    ),
    *(
        "1-2",
        "2-1",
        "0-1",
        "1-",
        "64-128",
        "32-64",
        "3-3",
        "1-99999999999999",
        "1",
        "30m",
        "0m",
        "0h0m0s",
        "1h30m",
        "m",
        "10",
        "1.5",
        "1e3",
    ),
    *("a" * 64, "a" * 254, "A", "a-b", "-a", "a.b", "mine.gan:build", "mine:build:x", "/data", "relative", "fp32", "adam", "auto"),
]
ENTRIES = [
    *({"name": "A", "value": ""}, {"name": "A", "secretKeyRef": {"name": "s", "key": "k"}}, {"name": "B"}),
    *({"secret": "a", "mountPath": "/a"}, {"configMap": "b", "mountPath": "/b"}, {"secret": "a", "configMap": "b", "mountPath": "/c"}),
    *({"claimName": "c", "mountPath": "/d"}, {"claimName": "c", "mountPath": "e"}),
]
# Keys of labels, and of annotations: allowed, reserved, and none.
KEYS = [
    *("team", "example.com/team", "kueue.x-k8s.io/priority-class", "a_B.c-d", "a" * 63, "a." * 120 + "a/b", "a" * 253 + "/b"),
    *("gentrain.dev/job", "ray.io/cluster", "app.kubernetes.io/managed-by", "kueue.x-k8s.io/queue-name"),
    *("", "a b", "/a", "a/", "a/b/c", "-a", "a-", "A.com/x", "a" * 64, "\u00e4", "a\n", "a" * 254 + "/b"),
]


@pytest.fixture(scope="session")
def server(definitions: ControlPlane) -> Iterator[Client]:
    """A client of a server with our definitions."""
    client = Client(from_kubeconfig(str(definitions.kubeconfig)))
    yield client
    client.close()


def job(spec: dict[str, Any], name: str = "job") -> dict[str, Any]:
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": name}, "spec": spec}


def complete(base: str) -> dict[str, Any]:
    return copy.deepcopy({**BASES[base], "training": {"steps": 10, "batch": {"global": 64}}})


def refusal(server: Client, spec: dict[str, Any]) -> str | None:
    """What the server has against a spec; None when it takes it."""
    try:
        server.create(JOBS, "default", job(spec), dry_run=True)
    except ApiError as error:
        if error.status not in (400, 422):
            raise
        return error.message
    return None


def leaves(
    schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every field of pydantic's own schema (not of ours), as (path, schema); "*" is a key of a map."""
    members = [member for member in schema.get("anyOf", [schema]) if member != {"type": "null"}]
    if len(members) == 1 and "$ref" in members[0]:
        members = [definitions[members[0]["$ref"].rpartition("/")[2]]]
    if len(members) == 1 and "properties" in members[0]:
        for name, inner in members[0]["properties"].items():
            yield from leaves(inner, definitions, (*path, name))
    elif len(members) == 1 and isinstance(members[0].get("additionalProperties"), dict):
        yield from leaves(members[0]["additionalProperties"], definitions, (*path, "*"))
    else:
        yield path, {"anyOf": members}


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Short ones where both bounds are such: hypothesis takes no others."""
    short = all(struct.unpack("f", struct.pack("f", bound))[0] == bound for bound in (low, high))
    return st.floats(low, high, width=32 if short else 64)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a leaf: what is allowed, what is just outside, and what is of another type."""
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    other = st.sampled_from([True, "x", 1, 0.5, [], {}])
    if "enum" in schema or "const" in schema:
        allowed = st.sampled_from(schema.get("enum") or [schema["const"]])
        return st.one_of(*[allowed] * 6, st.sampled_from(["other", 7]), other)
    kind = schema.get("type")
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", schema.get("exclusiveMinimum", -9)), schema.get("maximum", schema.get("exclusiveMaximum", 9))
        edges = st.sampled_from([low, high, low - 1, high + 1])
        inside = st.integers(int(low), min(int(low) + 200, int(high))) if kind == "integer" else floats(low, high)
        return st.one_of(*[inside] * 6, edges, other)
    if kind == "string":
        alike = st.from_regex(schema.get("pattern", "^a+$"), alphabet=st.characters(codec="ascii"))
        return st.one_of(*[alike] * 6, *[st.sampled_from(STRINGS)] * 2, other)
    if kind == "array":
        items = schema["items"]
        inner = st.sampled_from(ENTRIES) if "$ref" in items else values(items)
        return st.lists(inner, max_size=7) | other
    if kind == "boolean":
        return st.one_of(*[st.booleans()] * 6, other)
    assert kind == "object"
    key = st.sampled_from(["optimizer", "train_batch_size", "zero_optimization", "x"])
    return st.dictionaries(key, st.sampled_from([{}, {"stage": 2}, {"x": 1}]), max_size=2)


SCHEMA = Spec.model_json_schema()
LEAVES = list(leaves(SCHEMA, SCHEMA["$defs"]))
NETWORK_NAMES = st.sampled_from(["generator", "discriminator", "autoencoder", "denoiser", "noise_schedule", "model", "default", "other"])


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A valid spec with up to three fields changed, of which a good share is still valid."""
    base = draw(st.sampled_from(sorted(BASES)))
    spec = complete(base)
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 3]))):
        path, schema = draw(st.sampled_from([leaf for leaf in LEAVES if leaf[0][0] not in FAMILIES or leaf[0][0] in spec]))
        if draw(st.integers(0, 19)) == 0:
            path, schema = draw(st.sampled_from(LEAVES))
        at: Any = spec
        for part in path[:-1]:
            at = at.setdefault(draw(NETWORK_NAMES) if part == "*" else part, {})
        if path[-1] == "*":  # a map of plain values
            path = (draw(st.sampled_from(KEYS)),)
        if draw(st.integers(0, 29)) == 0:
            at[draw(st.sampled_from(["unknown", path[-1] + "s"]))] = 1
        else:
            at[path[-1]] = draw(values(schema))
    return spec


@CHOICE
@given(spec=specs())
def test_gtj_and_the_server_give_the_same_verdict(server: Client, spec: dict[str, Any]) -> None:
    ours = [problem.error().line() for problem in parse(job(spec))[1]]
    theirs = refusal(server, spec)
    assert (theirs is None) == (not ours), f"spec {json.dumps(spec)}\ngtj: {ours or 'valid'}\nserver: {theirs or 'valid'}"


def test_a_good_share_of_the_generated_specs_is_valid() -> None:
    """Were nearly all of one kind, the property above would say little."""
    verdicts: list[bool] = []

    @CHOICE
    @given(spec=specs())
    def count(spec: dict[str, Any]) -> None:
        verdicts.append(not parse(job(spec))[1])

    count()
    assert 0.15 < sum(verdicts) / len(verdicts) < 0.85


@pytest.mark.parametrize("base", sorted(BASES))
def test_a_plain_job_of_each_kind_is_taken(server: Client, base: str) -> None:
    assert refusal(server, complete(base)) is None


@pytest.mark.parametrize("string", STRINGS)
@pytest.mark.parametrize(
    "path",
    [("data", "source"), ("checkpoints", "uri"), ("checkpoints", "resumeFrom"), ("training", "initialWeights"), ("compute", "workers")],
)
def test_both_judge_every_nasty_string_alike(server: Client, path: tuple[str, str], string: str) -> None:
    spec = complete("custom")
    spec.setdefault(path[0], {})[path[1]] = string
    spec["training"]["batch"]["global"] = 64 * 63
    ours = [problem.error().line() for problem in parse(job(spec))[1]]
    assert (refusal(server, spec) is None) == (not ours), ours


@pytest.mark.parametrize("string", [*STRINGS, "hf://a/b@main", "hf://a", "hf://a/b/c", "hf://a/b?c", "hf://a/b/", "hf://a/ b"])
def test_both_judge_a_base_alike(server: Client, string: str) -> None:
    spec = complete("adapter")
    spec["language"]["base"]["source"] = string
    ours = [problem.error().line() for problem in parse(job(spec))[1]]
    assert (refusal(server, spec) is None) == (not ours), ours


def test_the_server_says_the_code(server: Client) -> None:
    message = refusal(server, {**complete("gan"), "vae": {}})
    assert message is not None
    assert "GTJ0106 exactly one of gan, vae, diffusion, language or custom is needed" in message


def test_the_server_shows_the_same_defaults_as_pydantic(server: Client) -> None:
    shown = server.create(JOBS, "default", job(complete("gan")), dry_run=True)["spec"]
    assert shown == Spec.model_validate(complete("gan")).model_dump(by_alias=True, exclude_none=True)


def test_what_changes_the_maths_is_fixed_once_started(server: Client, cluster: ControlPlane, namespace: str) -> None:
    created = server.create(JOBS, namespace, job(complete("gan"), "started"))
    server.merge(JOBS, namespace, "started", {"spec": {"training": {"seed": 1}}})
    status = {**job({}, "started"), "status": {"attempts": 1, "phase": "Running"}}
    del status["spec"]
    server.apply(JOBS, namespace, status, manager="test", subresource="status")
    for change in (
        {"training": {"seed": 2}},
        {"data": {"source": "builtin:shapes"}},
        {"gan": None, "vae": {}},
        {"gan": {"loss": {"criticSteps": 2}}},
    ):
        with pytest.raises(
            ApiError, match=r"spec\.[a-z.]+: Invalid value: .* spec\.[a-z.]+ cannot change once the job has started"
        ) as refused:
            server.merge(JOBS, namespace, "started", {"spec": change})
        assert "<nil>" not in refused.value.message
    changed = server.merge(JOBS, namespace, "started", {"spec": {"suspend": True, "compute": {"workers": 2}}})
    assert changed["metadata"]["generation"] == created["metadata"]["generation"] + 2


def test_kubectl_explains_every_field(server: Client, cluster: ControlPlane) -> None:
    assert "Adam's and AdamW's decay rates" in cluster.kubectl("explain", "gtj.spec.training.optimizers.betas").stdout
    explained = cluster.kubectl("explain", "cprof.spec", "--recursive").stdout
    assert "usdPerNodeHour" in explained


def test_kubectl_names_columns(server: Client, cluster: ControlPlane, namespace: str) -> None:
    server.create(JOBS, namespace, job(complete("vae"), "listed"))
    header = cluster.kubectl("-n", namespace, "get", "gtj", "-o", "wide").stdout.splitlines()[0].split()
    assert header[:8] == ["NAME", "PHASE", "PROGRESS", "LOSS", "ETA", "GPUS", "RESTARTS", "COST"]
    assert header[8:] == ["REASON", "FAMILY", "ZERO", "THROUGHPUT", "CHECKPOINT", "AGE"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_can_be_applied(server: Client, cluster: ControlPlane, namespace: str, sample: Path) -> None:
    """The file as it is, read by kubectl: YAML 1.1 in Python takes 1e-3 for a string."""
    cluster.kubectl("-n", namespace, "apply", "--validate=strict", "-f", str(sample))
