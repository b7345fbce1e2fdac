"""Completions at ZeRO stage 3 are those of stage 0, token for token, on two workers whose rows end at other lengths; nobody waits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group
import test_alignment

pytestmark = pytest.mark.slow

# name: (method, stage, what more of language)
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{f"{method}-{stage}": (method, stage, {}) for method in ("grpo", "ppo") for stage in (0, 3)},
    **{f"{kind}-{stage}": ("grpo", stage, {"adapter": {"type": kind}}) for kind in ("lora", "bottleneck") for stage in (0, 3)},
}
MOST = 24


def spec(name: str, root: Path) -> dict[str, Any]:
    method, stage, more = CASES[name]
    manifest = test_alignment.spec(f"{method}-z{stage}-w2", root)
    part = {"rewards": [{"function": "length", "target": 5}], "maxCompletion": MOST}
    manifest["language"][method] = {**part, **({"generations": 2, "beta": 0.1} if method == "grpo" else {})}
    manifest["language"]["network"]["contextLength"] = 64
    if more:
        manifest["language"] |= {**more, "base": {"source": f"file://{root / 'base'}"}, "network": {"contextLength": 48}}
    manifest["training"] |= {"steps": 2, "batch": {"global": 8, "micro": 2}}
    return manifest


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.bases import base

    root = tmp_path_factory.mktemp("drawing")
    test_alignment.write(root)
    base(root / "base", "llama")
    runs = [str(group.prepare(root / name, spec(name, root))) for name in CASES]
    group.run_group(2, runs, root, script="drawn.py")
    return root


def drawn(run: Path) -> list[list[dict[str, Any]]]:
    return [[torch.load(path) for path in sorted(run.glob(f"drawn-{rank}-*.pt"))] for rank in range(2)]


@pytest.mark.parametrize("name", [name.removesuffix("-3") for name in CASES if name.endswith("-3")])
def test_completions_of_stage_3_are_those_of_stage_0(name: str, root: Path) -> None:
    whole, split = (drawn(root / f"{name}-{stage}") for stage in (0, 3))
    for ours, theirs in zip(split, whole, strict=True):
        assert len(ours) == len(theirs) == 4  # two steps of two micro-batches
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one["tokens"], other["tokens"])
            assert torch.equal(one["count"], other["count"])


def test_a_rank_ends_when_its_rows_have_ended(root: Path) -> None:
    """Which in a network with hooks would leave the others waiting for ever."""
    for name in ("grpo-3", "ppo-3", "lora-3"):
        ranks = drawn(root / name)
        assert all(one["passes"] == int(one["count"].max()) for rank in ranks for one in rank)
        assert [one["passes"] for one in ranks[0]] != [one["passes"] for one in ranks[1]]


def test_a_token_of_stage_3_costs_little_more_than_one_of_a_plain_network(root: Path) -> None:
    """Processor time of all that is drawn, with the weights gathered, against that of stage 0, which draws the same."""
    spent = dict.fromkeys(("0", "3"), 0.0)
    for name in CASES:
        spent[name[-1]] += sum(one["seconds"] for rank in drawn(root / name) for one in rank)
    assert spent["3"] < 1.5 * spent["0"], spent
