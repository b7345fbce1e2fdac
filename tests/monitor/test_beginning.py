"""What a group of workers says of itself when it begins to train."""

from __future__ import annotations

import pytest
import torch

from trainjobs.api.job import Spec
from trainjobs.monitor.beginning import begun, emulated
from trainjobs.world import World


@pytest.mark.parametrize("compiled", [False, True])
def test_a_first_step_that_compiles_is_said_before_it(compiled: bool) -> None:
    network = {"architecture": "gpt2", "layers": 1, "hidden": 8, "heads": 1, "contextLength": 8}
    told = {
        "language": {"network": network},
        "data": {"source": "builtin:stdlib-text"},
        "training": {"steps": 1, "batch": {"global": 1}, "compile": compiled},
        "compute": {"workers": 1, "gpusPerWorker": 0},
    }
    words = begun(World(0, 1, torch.device("cpu")), 0, None, {}, Spec.model_validate(told))
    assert words == "1 worker on cpu, ZeRO stage 0" + ("; the first step compiles blocks" if compiled else "")


@pytest.mark.parametrize(
    ("device", "precision", "there", "words"),
    [
        (
            "cpu",
            "bf16",
            False,
            "this processor has no instructions for bf16, and torch's detour takes many times as long as precision: fp32",
        ),
        (
            "cpu",
            "fp16",
            False,
            "this processor has no instructions for fp16, and torch's detour takes many times as long as precision: fp32",
        ),
        ("cuda", "bf16", False, "this GPU has no instructions for bf16, and takes longer than with precision: fp16"),
        ("cuda", "fp16", False, ""),
        *((device, precision, True, "") for device in ("cpu", "cuda") for precision in ("bf16", "fp16")),
        *((device, "fp32", False, "") for device in ("cpu", "cuda")),
    ],
)
def test_a_precision_that_is_slower_than_fp32_is_told(
    device: str, precision: str, there: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("bf16", "fp16"):
        monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{kind}_supported", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: there or including_emulation)
    assert emulated(World(0, 1, torch.device(device)), precision) == words


def test_torch_says_what_this_processor_has() -> None:
    """The names are torch's own, and not public: whether they still are what they were."""
    flags = torch.cpu.get_capabilities()
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() >= flags.get("avx512_bf16", False)
    assert emulated(World(0, 1, torch.device("cpu")), "bf16") == "" or not flags.get("avx512_bf16", False)
