"""fp32 as half-precision numbers, rounded to the nearest as torch does, ties to even. numpy is imported by the first conversion."""

from __future__ import annotations

from collections.abc import Callable

from trainjobs.api.errors import JobError

STORED = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}  # names of safetensors


def converter(dtype: str) -> Callable[[memoryview], bytes]:
    """A function from fp32 to `dtype`, bf16 or fp16, both little-endian. JobError GTJ0107 without numpy."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        why, how = f"numbers are turned into {dtype} with numpy", "pip install numpy, or take --dtype fp32"
        raise JobError("GTJ0107", "a package is not installed", where="--dtype", why=why, how=how) from None
    return to_bf16 if dtype == "bf16" else to_fp16


def to_bf16(data: memoryview) -> bytes:
    import numpy as np

    bits = np.frombuffer(data, dtype="<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype("<u4")) >> 16
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, 0x7FC0, rounded).astype("<u2").tobytes()


def to_fp16(data: memoryview) -> bytes:
    """JobError GTJ0108 for finite numbers beyond 65504."""
    import numpy as np

    values = np.frombuffer(data, dtype="<f4")
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if bool((np.isinf(halves) & np.isfinite(values)).any()):
        why = f"one is {float(np.abs(values[np.isfinite(values)]).max()):.4g}, and fp16 ends at 65504"
        raise JobError("GTJ0108", "weights do not fit into fp16", where="--dtype", why=why, how="take --dtype bf16 or fp32")
    return halves.tobytes()
