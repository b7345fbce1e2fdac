"""DeepSpeed's configuration, written out: nothing that decides about gradients is left to a default."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from trainjobs.api.job import Spec
from trainjobs.plan.deepspeed import buckets, deepspeed_config, merged


def spec(precision: str = "fp32", clipping: float | None = None, config: dict[str, Any] | None = None) -> Spec:
    return Spec.model_validate(
        {
            "vae": {},
            "data": {"source": "builtin:digits"},
            "training": {"steps": 1, "precision": precision, **({} if clipping is None else {"gradientClipping": clipping})},
            "deepspeed": {"config": config or {}},
        }
    )


def config(chosen: Spec, stage: int = 0, tested: bool = True, parameters: int = 1025) -> dict[str, Any]:
    return deepspeed_config(chosen, stage=stage, micro=4, workers=2, parameters=parameters, tested_optimizer=tested)


# Every stage, precision and clipping: what each of them puts into the one golden configuration.
STAGES = {0: {}} | {stage: {"reduce_bucket_size": 2048, "allgather_bucket_size": 2048} for stage in (1, 2, 3)}
PRECISIONS = {"fp32": False, "bf16": True}
CLIPPINGS = {None: 0.0, 0.0: 0.0, 0.5: 0.5, 1.0: 1.0}
OVERRIDES: list[dict[str, Any]] = [
    {},
    {"gradient_clipping": 3.0},
    {"zero_optimization": {"overlap_comm": True}},
    {"zero_optimization": {"reduce_bucket_size": 7}, "bf16": {"enabled": False}, "wall_clock_breakdown": True},
]


@pytest.mark.parametrize(
    ("stage", "precision", "clipping", "override"),
    list(product(STAGES, PRECISIONS, CLIPPINGS, OVERRIDES)),
)
def test_golden(stage: int, precision: str, clipping: float | None, override: dict[str, Any]) -> None:
    zero = {"stage": stage, **STAGES[stage], **override.get("zero_optimization", {})}
    expected = {
        "train_micro_batch_size_per_gpu": 4,
        "train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": CLIPPINGS[clipping],
        "steps_per_print": 2147483647,
        "wall_clock_breakdown": False,
        "bf16": {"enabled": PRECISIONS[precision] and stage > 0},
        "checkpoint": {"tag_validation": "Fail"},
        "zero_allow_untested_optimizer": False,
        **override,
        "zero_optimization": zero,
    }
    assert config(spec(precision, clipping, override), stage) == expected


def test_an_optimizer_deepspeed_does_not_know_is_allowed() -> None:
    assert config(spec(), tested=False)["zero_allow_untested_optimizer"] is True


@pytest.mark.parametrize(("parameters", "size"), [(1, 1024), (1024, 1024), (1025, 2048), (10**9, 500_000_000), (10**12, 500_000_000)])
def test_buckets_are_no_larger_than_the_network(parameters: int, size: int) -> None:
    assert buckets(parameters) == {"reduce_bucket_size": size, "allgather_bucket_size": size}


def test_an_override_changes_neither_the_manifest_nor_what_it_does_not_name() -> None:
    override = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    chosen = spec(config=override)
    config(chosen, stage=3)["zero_optimization"]["stage"] = 99
    assert chosen.deepspeed.config == override
    assert config(chosen, stage=3)["zero_optimization"]["stage"] == 3


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"x": 1}}, {"a": False}, {"a": False}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_merged(base: dict[str, Any], over: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merged(base, over) == expected


@pytest.mark.slow
def test_deepspeed_reads_it_as_it_is_meant() -> None:
    """The client's parser, with one process: clipping 0 is no clipping, and false is false."""
    from deepspeed.runtime.config import DeepSpeedConfig

    read = DeepSpeedConfig({**config(spec(), stage=2), "train_batch_size": 4})
    assert read.gradient_clipping == 0.0
    assert read.managed_gradient_accumulation is False
    assert read.gradient_accumulation_steps == 1
    assert read.zero_optimization_stage == 2


@pytest.mark.slow
def test_canary_deepspeed_clips_when_it_is_not_told() -> None:
    """Why `gradient_clipping` is always written. If this fails, DeepSpeed has changed its default again: read its notes, mend the docstring
    of plan/deepspeed.py."""
    from deepspeed.runtime.config import DeepSpeedConfig

    assert DeepSpeedConfig({"train_batch_size": 1}).gradient_clipping == 1.0
