"""What a plan knows of GPUs: memory, and how many floating point operations a second they are built for.

Dense peaks of NVIDIA's data sheets, without sparsity, which training does not use: A100 (June 2021), H100 (March 2023, SXM), H200 (November
2024), L4 (2023), L40S (2023), T4 (2019), V100 (2020, SXM2), HGX B200 and B300 (2025); of A10G, which has none, those that AWS names for G5.
Memory as the driver tells it (the tables behind catalogue.json).
"""

from __future__ import annotations

from dataclasses import dataclass

MIB, TERA = 2**20, 10**12


@dataclass(frozen=True)
class Device:
    """`memory` in bytes; `single` and `half` in operations a second, of fp32 and of bf16 or fp16; 0 where nobody knows."""

    name: str
    memory: int
    single: float = 0.0
    half: float = 0.0

    def peak(self, precision: str) -> float:
        return self.single if precision == "fp32" else self.half


def _of(name: str, mib: int, single: float = 0.0, half: float = 0.0) -> tuple[str, Device]:
    return name, Device(name, mib * MIB, single * TERA, half * TERA)


DEVICES = dict(
    (
        _of("t4", 15360, 8.1, 65),
        _of("v100", 32768, 15.7, 125),
        _of("a10g", 22888, 31.5, 70),
        _of("l4", 22888, 30.3, 121),
        _of("l40s", 45776, 91.6, 362),
        _of("a100-40gb", 40960, 19.5, 312),
        _of("a100-80gb", 81920, 19.5, 312),
        _of("h100-80gb", 81920, 67, 989),
        _of("h200-141gb", 144384, 67, 989),
        _of("b200", 183359, 75, 2250),
        _of("b300", 275040, 75, 2250),
        _of("rtx-pro-4500", 32768),
        _of("rtx-pro-server-6000", 98304),
    )
)
# Shares of the peak that training reaches, by family: assumed, not measured. Small convolutions are bound by launches, not by arithmetic.
REACHED = {"language": (0.25, 0.50), "diffusion": (0.15, 0.35), "vae": (0.03, 0.15), "gan": (0.03, 0.15), "custom": (0.03, 0.50)}


def device(name: str) -> Device | None:
    """By the name that a profile gives it: `l4-24gb` is an L4."""
    return DEVICES.get(name) or DEVICES.get(name.partition("-")[0])
