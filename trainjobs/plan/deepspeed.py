"""DeepSpeed's JSON for one network, as a pure function of the job."""

from __future__ import annotations

from typing import Any

from trainjobs.api.job import Spec


def deepspeed_config(spec: Spec, *, stage: int, micro: int, workers: int, parameters: int, tested_optimizer: bool) -> dict[str, Any]:
    """The configuration of one engine. `spec.deepspeed.config` is merged last, key by key, so a user can change anything.

    Written out because DeepSpeed's defaults changed under other projects' feet: `gradient_clipping` became 1.0 in June 2026.
    `managed_gradient_accumulation: false` is the contract of the loop, "backward as often as you like, step() applies"; with
    the managed default several backwards before one step give wrong gradients at stages 1 and 2, without an error.

    At stage 0 DeepSpeed's bf16 is left off: the weights stay fp32, and the loop's autocast does what torch's does anywhere. DeepSpeed's
    would add up micro-batches in bf16, and ask the device about every single gradient before every step. So it is with fp16; its loss scale
    is ours at every stage (engine/loss_scale.py).
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "train_batch_size": micro * workers,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": spec.training.gradient_clipping,
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
        "zero_optimization": {"stage": stage, **(buckets(parameters) if stage else {})},
        "bf16": {"enabled": spec.training.precision == "bf16" and stage > 0},
        **({"fp16": {"enabled": True}} if spec.training.precision == "fp16" and stage > 0 else {}),
        "checkpoint": {"tag_validation": "Fail"},
        # The loop calls the module itself, never the engine, so DeepSpeed sees no forward pass to check.
        "zero_allow_untested_optimizer": not tested_optimizer,
    }
    return merged(config, spec.deepspeed.config)


def buckets(parameters: int) -> dict[str, int]:
    """Bucket sizes in elements: DeepSpeed's 5e8 would be 2 GB of buffer for a network of a megabyte."""
    size = min(500_000_000, -(-parameters // 1024) * 1024)  # DeepSpeed wants a multiple of its alignment
    return {"reduce_bucket_size": size, "allgather_bucket_size": size}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it; objects are merged, anything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
