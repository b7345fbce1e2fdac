"""The kernel that draws noise on a GPU: against the same draws by torch's operations, and through Triton's compiler for NVIDIA's GPUs.

On a processor the kernel runs in Triton's interpreter, which must be asked for before the kernel is defined, so in a process of its own.
Its compiler needs no GPU to make code for one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import trainjobs
from trainjobs import noise
from trainjobs.noise import Noise

SHAPES: tuple[tuple[int, ...], ...] = ((), (3,), (2, 5), (512,), (1025,), (3, 11, 33))
SAMPLES = ([0, 1, 5, 2**40, 2**62, -3], [], list(range(50, 40, -1)))
SEEDS = (0, 2**62 + 5)
KINDS = ("bits", "uniform", "integers of 7", "integers of 2**31 - 1", "normal")


def draw(draws: Noise, kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    if kind == "bits":
        return draws.bits("b", math.prod(shape))
    if kind == "normal":
        return draws.normal("z", *shape)
    return draws.uniform("u", *shape) if kind == "uniform" else draws.integers("i", 7 if kind.endswith(" 7") else 2**31 - 1, *shape)


def compare(device: str) -> dict[str, float]:
    """The largest difference of each kind of draw by the kernel on `device` from that by torch's operations on the CPU."""
    from trainjobs import noise_kernel

    found = dict.fromkeys(KINDS, 0.0)
    for seed in SEEDS:
        for numbers in SAMPLES:
            for shape in SHAPES:
                for kind in KINDS:
                    expected = draw(Noise(seed, torch.tensor(numbers, dtype=torch.int64)), kind, shape)
                    on = torch.tensor(numbers, dtype=torch.int64, device=device)
                    usual, noise._kernel = noise._kernel, lambda device: noise_kernel  # type: ignore[assignment]
                    try:
                        drawn = draw(Noise(seed, on), kind, shape)
                    finally:
                        noise._kernel = usual
                    assert (drawn.dtype, drawn.shape, drawn.device) == (expected.dtype, expected.shape, on.device)
                    if numbers:
                        found[kind] = max(found[kind], (drawn.cpu() - expected).abs().max().item())
    return found


def alone(code: str, **environment: str) -> Any:
    """What `code` prints as JSON, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_kernel_draws_what_torchs_operations_draw() -> None:
    code = "import json; from tests.test_noise_kernel import compare; print(json.dumps(compare('cpu')))"
    found = alone(code, TRITON_INTERPRET="1")
    assert found.pop("normal") <= 5e-7
    assert found == dict.fromkeys(KINDS[:-1], 0.0)  # to the last bit


COMPILE = """
import json, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from trainjobs import noise_kernel as kernel
found = []
for capability, kind in ((80, 0), (80, 1), (90, 2), (90, 3)):
    out = "*fp32" if kind in (kernel.UNIFORM, kernel.NORMAL) else "*i64"
    sizes = dict.fromkeys(("count", "words", "blocks", "high"), "i32")
    types = {"samples": "*i64", "out": out, "key": "i64", **sizes, "KIND": "constexpr", "BLOCK": "constexpr"}
    source = ASTSource(kernel._fill, types, {"KIND": kind, "BLOCK": kernel._BLOCK})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    found.append([len(made.asm["cubin"]), ".approx" in made.asm["ptx"]])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_tritons_compiler_makes_code_for_a_gpu_of_it_that_approximates_nothing() -> None:
    """Logarithm, cosine, sine and root in the precision of torch's own, where PTX has short approximations of each."""
    found = alone(COMPILE, TRITON_INTERPRET="0")
    assert len(found) == 4
    assert all(size > 1000 and not approximated for size, approximated in found)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was found out yet about the kernel."""
    noise._kernel.cache_clear()
    monkeypatch.delitem(sys.modules, "trainjobs.noise_kernel", raising=False)
    monkeypatch.delattr(trainjobs, "noise_kernel", raising=False)
    monkeypatch.delenv("GENTRAIN_NOISE_KERNEL", raising=False)


@pytest.mark.usefixtures("fresh")
def test_a_gpu_without_triton_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "trainjobs.noise_kernel", None)  # as if it could not be imported
    assert noise._kernel("cuda") is None
    assert noise._kernel("cuda") is None
    assert len(caplog.records) == 1
    assert "noise is drawn by torch's operations, not by one kernel: ModuleNotFoundError: " in caplog.text


@pytest.mark.usefixtures("fresh")
def test_the_switch_turns_the_kernel_off_and_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("GENTRAIN_NOISE_KERNEL", "0")
    monkeypatch.setitem(sys.modules, "trainjobs.noise_kernel", SimpleNamespace(draw=lambda *parts: pytest.fail("drawn")))  # type: ignore[arg-type]
    assert noise._kernel("cuda") is None
    assert caplog.messages == ["noise is drawn by torch's operations, not by one kernel: RuntimeError: GENTRAIN_NOISE_KERNEL is 0"]


@pytest.mark.usefixtures("fresh")
def test_a_processor_imports_no_triton_for_noise() -> None:
    Noise(0, torch.arange(3)).normal("z", 4)
    assert "trainjobs.noise_kernel" not in sys.modules
