"""The status of a GenerativeTrainingJob: written by the operator, read by people, `kubectl` and `gtj`.

Numbers are integers or strings, after the Kubernetes conventions: a float does not survive every client unchanged.
Every limit here is also enforced by the API server, so what the operator writes is cut to size before.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model

Count = Annotated[int, Field(ge=0, le=2**53)]
Short = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=253)]
Line = Annotated[str, Field(max_length=1024)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=64)]

PHASES = ("Pending", "Queued", "Provisioning", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed")
Phase = Literal["Pending", "Queued", "Provisioning", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed"]
FailureClass = Literal["Infrastructure", "Preemption", "Application", "Configuration"]


class Condition(Model):
    """One condition, after KEP-1623."""

    type: Annotated[str, Field(max_length=64)] = Field(description="Kind of condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Why, as one word for programs.")
    message: Line = Field("", description="Why, as a sentence for people.")
    observed_generation: Count | None = Field(None, description="Generation of the spec that this is about.")
    last_transition_time: Time = Field(description="When status last changed.")


class Restarts(Model):
    """Attempts that ended and were followed by another, by the class of what ended them."""

    infrastructure: Count = Field(0, description="Ended by a node, the network or the cluster.")
    application: Count = Field(0, description="Ended by the training itself.")
    preemption: Count = Field(0, description="Ended because its machines or its quota were taken back.")


class SinceProgress(Model):
    """Restarts that count against nothing, since the last checkpoint of a later step."""

    step: Count = Field(0, description="Step of that checkpoint.")
    restarts: Count = Field(0, description="Restarts with the present profile.")
    moves: Count = Field(0, description="How many profiles were passed over because no node took the pods.")
    free: Count = Field(0, description="All of them but those below; the job ends when they reach 20.")
    gave_back: Count = Field(0, description="How often an attempt gave its pods back because it could not get all of them.")


class ProfileRest(Model):
    """A profile that has failed the job lately."""

    name: Short = Field(description="ComputeProfile.")
    rests_until: Time | None = Field(None, description="Until when other profiles are tried before it.")
    rests: Count | None = Field(None, description="How often in a row it had to rest; each rest is twice as long as the one before.")
    why: Annotated[str, Field(max_length=256)] | None = Field(None, description="Why it rests.")
    reclaims: Annotated[list[Time], Field(max_length=3)] | None = Field(None, description="When its spot nodes were taken back lately.")


class AvoidedNode(Model):
    """A node that a failed attempt named."""

    name: Name = Field(description="Node.")
    failures: Count = Field(description="How many attempts named it; with two of them pods keep off it for a day.")
    since: Time = Field(description="When the last of them did, or when an accelerator of it was found bad.")
    why: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="What a condition of the node says of its accelerators: then no attempt has to fail on it first."
    )


class Preflight(Model):
    """What a small pod found before the first attempt."""

    key: Short = Field(description="What it looked at: a digest of job, image, account and all else that its pod was made of.")
    at: Time = Field(description="When it said so; it is remembered for a day.")
    passed: bool = Field(description="Whether the job may begin.")
    tries: Count = Field(1, description="Verdicts in a row that refused it.")
    said: Line = Field("", description="What was found; with a code, what is to be mended.")


class Notice(Model):
    """Something that is told by webhook, where the chart names one."""

    kind: Literal["Finished", "Failed", "BudgetReached", "Stalled", "Queued"] = Field(description="What happened.")
    since: Time = Field(description="Since when it is so.")
    told_at: Time | None = Field(None, description="When the webhook had taken it; absent until then.")


class Metric(Model):
    """One number of the last report."""

    name: Short = Field(description="Name, such as loss/G.")
    value: Short = Field(description="Value, as text.")


class Throughput(Model):
    """How much is learned in a second."""

    value: Short = Field(description="Number, as text.")
    unit: Short = Field(description="Of what: samples/s or tokens/s.")


class Progress(Model):
    """What the trainer last reported."""

    step: Count = Field(0, description="Optimizer steps done.")
    total_steps: Count = Field(0, description="Optimizer steps of the whole job.")
    samples: Count = Field(0, description="Training samples seen.")
    percent: Annotated[int, Field(ge=0, le=100)] = Field(0, description="Of the steps.")
    eta_seconds: Count | None = Field(None, description="Time left, as the trainer estimates it.")
    updated_at: Time | None = Field(None, description="When the step last changed.")
    metrics: Annotated[list[Metric], Field(max_length=32)] | None = Field(None, description="Numbers of the last report.")
    throughput: Throughput | None = Field(None, description="How much is learned in a second.")
    display: Short = Field("", description='Percent and steps, e.g. "24% 1200/5000".')
    message: Line | None = Field(None, description="Why the trainer makes no steps just now; absent while it does.")


class LastCheckpoint(Model):
    """The newest committed checkpoint."""

    uri: Line = Field(description="Where it is.")
    step: Count = Field(description="Optimizer steps it has.")
    committed_at: Time | None = Field(None, description="When it was committed.")
    size_bytes: Count | None = Field(None, description="Size of all its files.")
    fits_grace: bool | None = Field(None, description="Whether another one would be taken if the machines were taken back now.")


class Predicted(Model):
    """What `gtj plan` said of the way that the attempt goes."""

    memory_bytes: Count | None = Field(None, description="Of a rank, at its peak.")
    step_seconds: Short | None = Field(None, description="Of a step, from and to.")
    usd: Short | None = Field(None, description="Of all steps, from and to; of the training alone.")
    basis: Line | None = Field(None, description="What the time rests on.")


class Measured(Model):
    """What came of it so far; the cost is in status.cost."""

    memory_bytes: Count | None = Field(
        None, description="Peak of rank 0 on its GPU; absent on a CPU, where the process holds more than the training."
    )
    step_seconds: Short | None = Field(None, description="Mean of all steps.")


class Plan(Model):
    """What was chosen for the attempt."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = Field(None, description="ZeRO stage.")
    workers: Count | None = Field(None, description="Of an elastic group, as many as it has now.")
    profile: Short | None = Field(None, description="ComputeProfile of the current attempt.")
    gpus_per_worker: Count | None = Field(None, description="As it was when the attempt began; what the attempt is priced by.")
    per_node: Count | None = Field(None, description="Accelerators of a node of the profile when the attempt began.")
    usd_per_node_hour: Short | None = Field(
        None,
        alias="usdPerNodeHour",
        description="Price of a node for an hour, as it was when the attempt began; absent where nobody knows.",
    )
    price_source: Line | None = Field(
        None,
        description="Where the price is from and of what day: the profile, or the list price of the node's type; or why there is none.",
    )
    head_usd_per_hour: Short | None = Field(
        None, alias="headUsdPerHour", description="Price of the head pod for an hour, its part of its node; absent where nobody knows."
    )
    head_price_source: Line | None = Field(None, description="The same of the head's price.")
    predicted: Predicted | None = Field(
        None, description="Absent without the annotation gentrain.dev/plan, which gtj submit writes after gtj plan."
    )
    measured: Measured | None = None
    missed: Line | None = Field(None, description="What lies outside of what was predicted; absent where nothing does.")


class Cost(Model):
    """What the attempts have cost together."""

    usd: Short = Field("unknown", description='Cost so far, "unknown" without a price.')
    source: Line | None = Field(
        None,
        description="Where the price of the current attempt is from and of what day; of spot nodes without a price of their own: at most.",
    )
    gpu_hours: Short = Field("0", description="GPUs times hours.")
    rate_per_hour_usd: Short = Field("unknown", alias="ratePerHourUSD", description="Price of an hour of the current attempt.")
    seconds: Count | None = Field(None, description="How many of activeSeconds the figures here cover.")
    head: Line | None = Field(
        None, description="Where the price of the current attempt's head is from; or why its time costs nothing here."
    )
    worker_seconds: Count | None = Field(None, description="Seconds of all workers together.")
    head_seconds: Count | None = Field(None, description="Seconds of the heads that are in the cost.")
    start_of: Name | None = Field(
        None, description="RayCluster up to which the time of starting is counted: of each pod, from when it had a node."
    )
    gpu_seconds: Count | None = Field(None, description="Seconds of all GPUs together.")
    micro_usd: Count | None = Field(None, alias="microUSD", description="Cost so far in millionths of a USD, each part at its own price.")
    minutes: Count | None = Field(None, description="Of an earlier operator; no longer written.")
    worker_minutes: Count | None = Field(None, description="Of an earlier operator; read once and no longer written.")


class FailureStatus(Model):
    """Why the job failed, or why its last attempt did."""

    code: Annotated[str, Field(max_length=7)] = Field(description="Code, explained in docs/errors.")
    class_: FailureClass = Field(alias="class", description="Who has to do something about it: decides whether another attempt follows.")
    summary: Line = Field(description="What failed, in a few words.")
    detail: Line = Field("", description="What is known of it.")
    resolution: Line = Field("", description="What to do about it.")
    rank: Count | None = Field(None, description="Rank that failed first.")
    node: Name | None = Field(None, description="Node it ran on.")
    step: Count | None = Field(None, description="Last step before it.")
    log_tail: Annotated[str, Field(max_length=4096)] | None = Field(None, description="Last lines of its log.")


class RayStatus(Model):
    """KubeRay's objects of the current attempt."""

    ray_job: Name | None = Field(None, description="RayJob of the current attempt.")
    ray_cluster: Name | None = Field(None, description="RayCluster of the current attempt.")
    dashboard: Line | None = Field(None, description="Address of Ray's dashboard within the cluster.")


class Summary(Model):
    """Preformatted texts of the printer columns."""

    loss: Short = Field("", description="LOSS.")
    eta: Short = Field("", description="ETA.")
    gpus: Short = Field("", description="GPUS.")
    restarts: Short = Field("", description="RESTARTS.")
    cost: Short = Field("", description="COST.")
    family: Short = Field("", description="FAMILY.")
    zero: Short = Field("", description="ZERO: the stage.")
    throughput: Short = Field("", description="THROUGHPUT.")
    checkpoint: Short = Field("", description="CHECKPOINT: its step.")
    reason: Short = Field("", description="REASON.")


class Status(Model):
    observed_generation: Count | None = Field(None, description="Generation of the spec that the operator last looked at.")
    phase: Phase | None = Field(None, description="A summary for people; programs read the conditions.")
    message: Line | None = Field(None, description="One line about it all.")
    conditions: Annotated[list[Condition], Field(max_length=16)] | None = Field(None, description="What programs read, by type.")
    attempts: Count | None = Field(None, description="RayJobs created so far.")
    ended: Count | None = Field(None, description="Attempts whose end has been accounted for; equal to attempts when none is under way.")
    restarts: Restarts | None = None
    since_progress: SinceProgress | None = None
    started_at: Time | None = Field(None, description="When the first attempt began.")
    finished_at: Time | None = Field(None, description="When the job ended.")
    active_seconds: Count | None = Field(
        None, description="Time in which head and workers of the attempts ran; waiting does not count. What the deadline counts."
    )
    active_until: Time | None = Field(None, description="Until when activeSeconds has been counted.")
    retry_at: Time | None = Field(None, description="When the next attempt starts.")
    progress: Progress | None = None
    checkpoint: LastCheckpoint | None = None
    plan: Plan | None = None
    cost: Cost | None = None
    profiles: Annotated[list[ProfileRest], Field(max_length=16)] | None = Field(None, description="Profiles that have failed it lately.")
    avoided_nodes: Annotated[list[AvoidedNode], Field(max_length=16)] | None = Field(
        None, description="Nodes that have failed it lately. Read at the next attempt."
    )
    preflight: Preflight | None = None
    notices: Annotated[list[Notice], Field(max_length=16)] | None = Field(None, description="What is told by webhook.")
    failure: FailureStatus | None = None
    ray: RayStatus | None = None
    summary: Summary | None = None
