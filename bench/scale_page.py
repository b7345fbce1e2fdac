"""docs/concepts/scale.md: how cost grows, from bench/results/scale.json and arithmetic."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from trainjobs.plan.memory import Weights, states

AROUND = 1_000_000_000  # weights between two uses beyond which DeepSpeed gathers them again (stage3_max_reuse_distance)
LINKS = {"400 GB/s a node of 8": 50e9, "25 Gbit/s a node of 8": 25e9 / 8 / 8}  # bytes a second and GPU


class Model(NamedTuple):
    name: str
    trained: int
    stage: int
    precision: str
    tensors: int


MODELS = (
    Model("a StyleGAN2 of 59 M, fp32", 59_000_000, 0, "fp32", 300),
    Model("an autoencoder of 84 M, bf16", 84_000_000, 0, "bf16", 250),
    Model("a UNet of 2.6 B, bf16", 2_600_000_000, 2, "bf16", 1700),
    Model("a language model of 8 B, bf16", 8_000_000_000, 3, "bf16", 300),
)


def handed(stage: int, parameters: int, size: int) -> dict[str, int]:
    """Bytes that a rank hands to each collective operation in a step: its gradients, and the weights that it does not keep."""
    if stage == 0:
        return {"all_reduce": 4 * parameters}  # gradients are fp32 there, in bf16 too
    if stage < 3:
        return {"all_reduce": size * parameters, "all_gather_into_tensor": size * parameters}
    gathered = size * parameters * (2 if parameters > AROUND else 1)
    return {"all_gather_into_tensor": gathered, "reduce_scatter_tensor": size * parameters}


def sent(handed: dict[str, int], ranks: int) -> float:
    """Bytes that a rank sends where operations go round a ring (Patarasuk and Yuan, 2009)."""
    return sum((2 if name == "all_reduce" else 1) * count * (ranks - 1) / ranks for name, count in handed.items())


def about(result: dict[str, Any], stage: int, tensors: int, ranks: int) -> float:
    """Bytes of a commit beside its tensors: a line for each rank; at stage 3 one for each slice of each tensor."""
    found = next(row for row in result["pairs"] if row["family"] == "vae")
    by = {(case["processes"], case["stage"]): case["about"] for case in found["cases"]}
    slope = (by[4, 0] - by[2, 0]) / 2
    if stage == 3:
        slope += ((by[4, 3] - by[2, 3]) / 2 - slope) / found["tensors"] * tensors
    return float(by[2, 0] + slope * (ranks - 2))


def page(result: dict[str, Any] | None) -> str:
    parts = [HEAD, *([*measured(result), *modelled(result)] if result else ["Not measured.", ""]), TAIL]
    return "\n".join(parts) + "\n"


def measured(result: dict[str, Any]) -> list[str]:
    lines = [MEASURED.replace("LOAD", f"{result['machine']['loadBefore']:g}")]
    for row in result["pairs"]:
        for case in row["cases"]:
            processes, stage = case["processes"], case["stage"]
            cells = [row["family"], stage, processes, f"{1000 * median(rank['seconds'] for rank in case['ranks']):.0f} ms"]
            cells.append(f"{max(sum(rank['sent'].values()) for rank in case['ranks']) / 1e6:.2f} MB" if processes > 1 else "")
            cells += [f"{max(rank['held'] for rank in case['ranks']) / 2**20:.0f} MiB", case["objects"] + case["others"]]
            cells.append(f"{row['firstStep'][str(processes)]:.1f} s" if stage == 0 and str(processes) in row["firstStep"] else "")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


def modelled(result: dict[str, Any]) -> list[str]:
    head = [
        "Model, ZeRO stage",
        "GPUs",
        "states",
        "sent in a step",
        *(f"at {link}" for link in LINKS),
        "objects of a checkpoint",
        "their lists",
    ]
    lines = [MODELLED, f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for model in MODELS:
        for ranks in (8, 64, 1024):
            held = states(Weights({"model": model.trained}), model.stage, ranks, model.precision) / 2**30
            moved = sent(handed(model.stage, model.trained, 4 if model.precision == "fp32" else 2), ranks)
            cells = [f"{model.name}, {model.stage}", ranks, f"{held:.1f} GiB", f"{moved / 1e9:.2f} GB"]
            cells += [f"{moved / rate:.2f} s" for rate in LINKS.values()]
            cells += [2 * ranks + 3, f"{about(result, model.stage, model.tensors, ranks) / 1e6:.1f} MB"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


HEAD = """# How cost grows

Made by `make bench` from `bench/results/scale.json` and arithmetic (`bench/scale_page.py`); do not edit.

## What a step sends

| `deepspeed.stage` | a rank hands over, P trained weights of b bytes | |
| --- | --- | --- |
| 0 | 4 P to an all-reduce | gradients, in fp32 |
| 1, 2 | b P to an all-reduce, b P to a gather | gradients; the weights that other ranks updated |
| 3 | b P to a gather, b P to a scatter | weights before they are used, twice of a network of more than 10^9; gradients |

A phase of a GAN hands over its own network. Metrics are about a hundred bytes more, at the steps that tell them. Micro-batches are added
up first at stages 0 and 1; at stage 2 the gradient of each is handed over by itself, and at stage 3 the weights are gathered for each, too.
"""
MEASURED = """## Measured on two cores

The networks of the training benchmark, fp32. Bytes are what a rank hands to collective operations in one step; memory is the largest
proportional set of a rank. Processes share the two cores, so four take the step of two in twice the time at best.
The load of the machine was LOAD when it began.

| Family | stage | processes | a step | handed over | memory | objects of a checkpoint | first step |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
MODELLED = """## By arithmetic

States are those of [the plan](plan.md), without what a step needs beside them. A rank sends (W - 1)/W of what it hands to a gather or a
scatter, and twice that of an all-reduce. The time is that of the bytes alone, if nothing else went on: what of it is hidden behind the
backward pass is not counted.
"""
TAIL = """## Beside the steps

- **A checkpoint** is an object of tensors and one of their list for each rank, which that rank uploads, and a commit by rank 0, which reads
  all lists and asks its store about ten times whatever the number of ranks. So uploads divide by the ranks, and what grows is rank 0's
  reading.
- **The head** hears from rank 0 alone: one call a second, with what is new of its files. Others call it when they fail. Ray Train asks
  every worker every two seconds how it is: 512 calls a second of 1,024 GPUs, on one thread of the head.
- **The operator** asks a head for `/progress` once in ten seconds whatever its number of workers, and lists and watches jobs, RayJobs and
  pods: [10,000 jobs](../benchmarks.md) are its recorded figure.
- **Data**: every machine fetches every shard that it reads of ([at any size](../how-to/data.md)); n machines fetch the data of shards n
  times.

## What breaks first

- *Up to 8 GPUs of one machine*: nothing that was seen.
- *At 64, on slow networks*: stages 1 to 3 on 25 Gbit/s. The table has the seconds of sending that each step has; a fabric is what to pay
  for, or adapters, of which stages 0 to 2 send the adapter alone.
- *At 1,024, stage 3*: the lists of a checkpoint's slices, which rank 0 reads and writes again whole. They grow with tensors times ranks.
  Take stage 2 where the weights fit: a line for each rank.
- *At 1,024*: data as shards, of which every one of 128 machines fetches nearly all; the store's rate is what then limits the first epoch.

None of the last three was tried at that size: they follow from what was measured at two and four processes."""
