"""Makes trainjobs/plan/catalogue.json of the published tables of node types: `python .ci/catalogue.py FOLDER`.

FOLDER has aws.csv, azure.csv and gcp.csv, as their README.md says. What is not there in a number is left out: nothing is guessed.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "trainjobs/plan/catalogue.json"

SOURCES = {
    "aws": "Karpenter's list of instance types and prices for AWS, us-east-1, 2026-07-20",
    "azure": "Karpenter's list of prices for Azure, 2026-06-18",
    "gcp": "Cluster Autoscaler's list of prices for GCE, us-central1, 2026-06-23",
}
# By the size's name: kind of GPU, and how many of them a node has.
AZURE = {
    "Standard_NC4as_T4_v3": ("t4", 1),
    "Standard_NC8as_T4_v3": ("t4", 1),
    "Standard_NC16as_T4_v3": ("t4", 1),
    "Standard_NC64as_T4_v3": ("t4", 4),
    "Standard_NC24ads_A100_v4": ("a100-80gb", 1),
    "Standard_NC48ads_A100_v4": ("a100-80gb", 2),
    "Standard_NC96ads_A100_v4": ("a100-80gb", 4),
    "Standard_ND96asr_A100_v4": ("a100-40gb", 8),
    "Standard_ND96amsr_A100_v4": ("a100-80gb", 8),
    "Standard_ND96isr_H100_v5": ("h100-80gb", 8),
    "Standard_ND96isr_H200_v5": ("h200-141gb", 8),
}
# GCE prices machine types whole, where they are in its list.
GCP = {
    "a2-highgpu": "a100-40gb",
    "a2-ultragpu": "a100-80gb",
    "a2-megagpu": "a100-40gb",
    "g2-standard": "l4",
}
_GPUS_OF_G2 = {4: 1, 8: 1, 12: 1, 16: 1, 24: 2, 32: 1, 48: 4, 96: 8}


def kind(name: str, memory_mib: int) -> str:
    """A GPU as the catalogue calls it: an A100 of 80 GB is not one of 40."""
    if name == "a100":
        return "a100-80gb" if memory_mib > 50_000 else "a100-40gb"
    return {"h100": "h100-80gb", "h200": "h200-141gb"}.get(name, name)


def aws(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in csv.DictReader((folder / "aws.csv").open()):
        if int(row["gpu_count"]) == 0:  # a part of a GPU
            continue
        node: dict[str, Any] = {
            "provider": "aws",
            "gpu": kind(row["gpu_name"], int(row["gpu_memory_mib"])),
            "gpus": int(row["gpu_count"]),
            "cpu": row["allocatable_cpu"],
            "memory": row["allocatable_memory"],
            "efa": int(row["efa"] or 0),
        }
        if row["nvme_gb"]:
            node["nvmeGB"] = int(row["nvme_gb"])
        if row["usd_per_hour_on_demand_us_east_1"]:
            node["usdPerHour"] = {"us-east-1": row["usd_per_hour_on_demand_us_east_1"]}
        yield row["instance_type"], node


def azure(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    prices: dict[str, dict[str, str]] = {}
    for row in csv.DictReader((folder / "azure.csv").open()):
        prices.setdefault(row["size"], {})[row["region"]] = row["usd_per_hour_on_demand"]
    for size, (gpu, gpus) in AZURE.items():
        yield size, {"provider": "azure", "gpu": gpu, "gpus": gpus, "usdPerHour": dict(sorted(prices[size].items()))}


def gcp(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in csv.DictReader((folder / "gcp.csv").open()):
        family, _, size = row["name"].rpartition("-")
        if row["table"] != "instancePrices" or family not in GCP:
            continue
        number = int(re.sub(r"\D", "", size))
        gpus = _GPUS_OF_G2[number] if family == "g2-standard" else number
        yield (
            row["name"],
            {"provider": "gcp", "gpu": GCP[family], "gpus": gpus, "usdPerHour": {"us-central1": row["usd_per_hour_us_central1"]}},
        )


def made(folder: Path) -> str:
    nodes = {name: node for read in (aws, azure, gcp) for name, node in read(folder)}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(node)}" for name, node in sorted(nodes.items()))
    return f'{{"sources": {json.dumps(SOURCES)}, "nodes": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    TARGET.write_text(made(Path(sys.argv[1])))
