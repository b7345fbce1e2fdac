"""Which machines it is learned on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from trainjobs.api.fields import ImageName, LabelName, LabelText, Model, ObjectName, PositiveInt
from trainjobs.api.keys import DOMAIN, LONGEST, NAME, map_rule
from trainjobs.api.rule import Breach, Rule

Names = Annotated[list[LabelName], Field(max_length=16)]


TopologyLevel = Annotated[str, Field(min_length=1, max_length=LONGEST, pattern=rf"^({DOMAIN}/)?{NAME}$")]


class Topology(Model):
    """How near the workers have to be to each other: a node label that is a level of the queue's Topology (Kueue)."""

    required: TopologyLevel | None = Field(
        None, description="The label of whose domains one must hold all workers, e.g. cloud.google.com/gce-topology-block; else they wait."
    )
    preferred: TopologyLevel | None = Field(None, description="The same as a wish: of what one domain cannot hold, as few as it takes.")


class Compute(Model):
    """The machines it is learned on."""

    profiles: Names = Field([], description="ComputeProfiles tried in order.")
    return_: bool = Field(
        False,
        alias="return",
        description="Go back, at the next checkpoint, to a profile that is named before the present one, once its rest is over.",
    )
    workers: PositiveInt | Annotated[str, Field(max_length=16, pattern=r"^[1-9][0-9]*-[1-9][0-9]*$")] = Field(
        1,
        description='Number of workers, or "min-max" for an elastic group: as many as there is room for, of the numbers that divide '
        "the global batch.",
    )
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] = Field(
        1, description="GPUs of a worker, which trains with a process on each; 0 trains on CPU, with one process."
    )
    queue: LabelName | None = Field(None, description="Kueue LocalQueue.")
    priority_class: LabelName | None = Field(
        None, description="WorkloadPriorityClass: the job's place in the queue, and whose quota it may take back."
    )
    queue_elastic: bool = Field(
        False,
        description="An elastic job in a queue scales there as well, its quota with it (Kueue's gate ElasticJobsViaWorkloadSlices); else "
        "it asks for its largest size.",
    )
    topology: Topology | None = Field(
        None, description="How near the workers have to be to each other, of a queue that knows its topology."
    )

    @property
    def worker_range(self) -> tuple[int, int]:
        """(min, max) workers; equal when the group is not elastic."""
        if isinstance(self.workers, int):
            return self.workers, self.workers
        low, high = self.workers.split("-")
        return int(low), int(high)

    @property
    def each(self) -> int:
        """Processes of a worker."""
        return max(1, self.gpus_per_worker)

    @property
    def elastic(self) -> bool:
        low, high = self.worker_range
        return low != high


class EnvSecret(Model):
    name: ObjectName = Field(description="Secret.")
    key: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Key in the Secret.")


class Env(Model):
    name: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(description="Name of the variable.")
    value: Annotated[str, Field(max_length=4096)] | None = Field(None, description="Plain value; never a credential.")
    secret_key_ref: EnvSecret | None = Field(None, description="Value taken from a Secret.")


class Volume(Model):
    claim_name: ObjectName = Field(description="PersistentVolumeClaim in the job's namespace.")
    mount_path: Annotated[str, Field(max_length=1024, pattern=r"^/.+$")] = Field(description="Absolute path in the pods.")
    read_only: bool = Field(False, description="Mount read-only.")


class Files(Model):
    """Files out of a Secret or a ConfigMap: each key is a file."""

    secret: ObjectName | None = Field(None, description="Secret in the job's namespace.")
    config_map: ObjectName | None = Field(None, description="ConfigMap in the job's namespace.")
    mount_path: Annotated[str, Field(max_length=1024, pattern=r"^/.+$")] = Field(description="Folder in the pods, read-only.")


RESERVED = {
    # Beginnings of keys that the operator, KubeRay or Kueue write, and what to do instead.
    "gentrain.dev/": "the operator finds its objects by it",
    "ray.io/": "KubeRay finds its objects by it",
    "app.kubernetes.io/managed-by": "the operator finds its objects by it",
    "kueue.x-k8s.io/queue-name": "write compute.queue",
    "kueue.x-k8s.io/managed": "Kueue writes it",
}


class Pod(Model):
    """What a job may change about its pods; everything else belongs to its ComputeProfile."""

    image: ImageName | None = Field(None, description="Image of head and workers; default: the chart's trainer image.")
    image_pull_secrets: Annotated[list[ObjectName], Field(max_length=8)] = Field([], description="Secrets for private registries.")
    service_account_name: ObjectName | None = Field(None, description="Service account; default: the profile's.")
    env: Annotated[list[Env], Field(max_length=64)] = Field([], description="Environment of the trainer.")
    volumes: Annotated[list[Volume], Field(max_length=8)] = Field([], description="Claims mounted into the pods.")
    files: Annotated[list[Files], Field(max_length=8)] = Field([], description="Secrets and ConfigMaps mounted into the pods as files.")
    labels: Annotated[dict[str, LabelText], Field(max_length=32)] = Field(
        {}, description="Labels of the RayJob and of every pod. Those of metadata stay on the job."
    )
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = Field(
        {}, description="Annotations of the RayJob and of every pod. Those of metadata stay on the job."
    )
    node_selector: Annotated[dict[str, LabelText], Field(max_length=16)] = Field(
        {}, description="Node labels that workers need beside the profile's."
    )
    affinity: dict[str, Any] | None = Field(None, description="Affinity of the workers, as in a pod.")
    priority_class_name: ObjectName | None = Field(None, description="PriorityClass of head and workers.")
    runtime_class_name: ObjectName | None = Field(None, description="RuntimeClass of head and workers, such as nvidia or gvisor.")


def workers_ascend(workers: int | str) -> Iterator[Breach]:
    low, _, high = str(workers).partition("-")
    if high and int(low) > int(high):
        yield Breach((), f'"{workers}" is not a range of workers', "the smaller number comes first", f'did you mean "{high}-{low}"?')


def queue_is_named(compute: Compute) -> Iterator[Breach]:
    for name, value in (("priorityClass", compute.priority_class), ("topology", compute.topology)):
        if value is not None and compute.queue is None:
            yield Breach(
                (name,), f"compute.{name} needs compute.queue", "it is Kueue that reads it, of jobs in a queue", "name the LocalQueue"
            )


def queue_is_elastic(compute: Compute) -> Iterator[Breach]:
    if compute.queue_elastic and (compute.queue is None or not compute.elastic):
        lacks = "a queue" if compute.queue is None else "an elastic group"
        how = "name the LocalQueue" if compute.queue is None else 'write workers as a range, such as "2-8"'
        yield Breach(("queueElastic",), f"compute.queueElastic needs {lacks}", "it is how an elastic job scales in a queue", how)


def topology_has_one_level(topology: Topology) -> Iterator[Breach]:
    if (topology.required is None) == (topology.preferred is None):
        what = "a topology needs required or preferred" if topology.required is None else "a topology has both required and preferred"
        yield Breach((), what, "Kueue takes one of them", "keep one of them")


def variable_has_one_value(env: Env) -> Iterator[Breach]:
    if (env.value is None) == (env.secret_key_ref is None):
        what = f"{env.name} needs a value or a secretKeyRef" if env.value is None else f"{env.name} has both a value and a secretKeyRef"
        yield Breach((), what, "a variable has one value", "keep one of them: secretKeyRef for anything secret")


def variables_differ(variables: list[Env]) -> Iterator[Breach]:
    names = [env.name for env in variables]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Breach((index,), f"{name} is set twice", "the later one would win", "take one of them out")


def keys_are_free(marks: dict[str, str]) -> Iterator[Breach]:
    for key in marks:
        if begin := next((begin for begin in RESERVED if key.startswith(begin)), None):
            yield Breach((key,), f"{key} is not yours to set", RESERVED[begin], "take it out", on_key=True)


def files_have_one_source(files: Files) -> Iterator[Breach]:
    if (files.secret is None) == (files.config_map is None):
        what = (
            f"{files.mount_path} needs a secret or a configMap"
            if files.secret is None
            else f"{files.mount_path} has both a secret and a configMap"
        )
        yield Breach((), what, "a folder has one source", "keep one of them, and write another entry for the other")


_FREE = "self.all(key, " + " && ".join(f"!key.startsWith('{begin}')" for begin in RESERVED) + ")"

RULES = (
    *(map_rule(f"spec.pod.{field}") for field in ("labels", "annotations", "nodeSelector")),
    *(
        Rule(f"spec.pod.{field}", "GTJ0108", keys_are_free, _FREE, f"keys that begin with {', '.join(RESERVED)} are not yours to set")
        for field in ("labels", "annotations")
    ),
    Rule(
        "spec.pod.files.*",
        "GTJ0108",
        files_have_one_source,
        "has(self.secret) != has(self.configMap)",
        "exactly one of secret and configMap",
    ),
    Rule(
        "spec.compute",
        "GTJ0108",
        queue_is_named,
        "has(self.queue) || !has(self.priorityClass) && !has(self.topology)",
        "priorityClass and topology need a queue",
    ),
    Rule(
        "spec.compute",
        "GTJ0108",
        queue_is_elastic,
        "!has(self.queueElastic) || !self.queueElastic || has(self.queue) && has(self.workers) && type(self.workers) == string"
        " && string(self.workers).split('-')[0] != string(self.workers).split('-')[1]",
        "queueElastic needs a queue, and workers as a range",
    ),
    Rule(
        "spec.compute.topology",
        "GTJ0108",
        topology_has_one_level,
        "has(self.required) != has(self.preferred)",
        "exactly one of required and preferred",
    ),
    Rule(
        "spec.compute.workers",
        "GTJ0102",
        workers_ascend,
        "type(self) == int || int(string(self).split('-')[0]) <= int(string(self).split('-')[1])",
        "not a range of workers: the smaller number comes first",
    ),
    Rule(
        "spec.pod.env.*",
        "GTJ0108",
        variable_has_one_value,
        "has(self.value) != has(self.secretKeyRef)",
        "exactly one of value and secretKeyRef",
    ),
    # To the server the list is a map by name, in which there are no two of one name.
    Rule("spec.pod.env", "GTJ0108", variables_differ),
)
