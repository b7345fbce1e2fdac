"""What is known of a job, and what is to be done about it: the two ends of a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gentrain_operator.gang import Holding
from gentrain_operator.kube.resource import Object
from gentrain_operator.queues import UNKNOWN, Looked
from gentrain_operator.refusals import Refusal


@dataclass(frozen=True)
class Observed:
    """Everything known of a job. `pods` are those of all its attempts; `taken` says why its RayJob could not be created, `refused` what
    the API server has against it; `kueue` is asked for while a queue holds the RayJob; `frozen` is the job that the attempt under way was
    started with, {} when that is nowhere: looked up only when a decision asks for it; `holding` is what it holds while it waits for the
    rest of its pods, `rivals` are other jobs in that state, while it is."""

    job: Object
    rayjobs: Sequence[Object] = ()
    profiles: Mapping[str, Object] | None = None
    pods: Sequence[Object] = ()
    report: Object | None = None
    taken: str = ""
    refused: Refusal | None = None
    kueue: Looked = UNKNOWN
    frozen: Object | None = None
    holding: Holding | None = None
    rivals: Sequence[Holding] = ()
    told: Mapping[str, Sequence[Object]] = field(
        default_factory=dict
    )  # events about pods that fit no node, or a RayJob without pods, by UID
    enforced: str = ""  # the Pod Security level of its namespace, where one of its profiles needs more than the strictest
    sick: Mapping[str, str] = field(default_factory=dict)  # nodes with a bad accelerator, and what is said of them
    node: Mapping[str, str] | None = None  # labels of a worker's node, while its price is looked for; {} when they cannot be had
    head: Object | None = None  # the head's node, while its price is looked for; {} when it cannot be had
    starts: bool = True  # whether the definition keeps whose start was counted: else it would be counted at every look
    poor: str = ""  # why it is suspended without having asked: its budget


@dataclass(frozen=True)
class Decision:
    """Acts, in the order in which they are carried out: create, suspend, status, delete, delete_job."""

    create: tuple[Object, ...] = ()
    suspend: tuple[Object, bool] | None = None
    status: Object | None = None
    delete: tuple[Object, ...] = ()
    delete_job: bool = False
    needs_frozen: bool = False  # to be looked up, and then decided anew
    again: float | None = None
