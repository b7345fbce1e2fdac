"""The noise is the published generator, is distributed as it says, and does not depend on how a batch is cut."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from trainjobs import noise as drawing
from trainjobs import noise_words
from trainjobs.noise import _GAMMA, Between, Noise, _mix, _signed, mix

# Output of Vigna's splitmix64.c (public domain, prng.di.unimi.it) for the seed 1234567, as listed at rosettacode.org, and of
# java.util.SplittableRandom's algorithm for the seed 0.
PUBLISHED = {
    1234567: [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821],
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B],
}


def noise(samples: int | torch.Tensor, seed: int = 0, step: int = 1, phase: str = "train") -> Noise:
    return Noise.of(seed, step, phase, torch.arange(samples) if isinstance(samples, int) else samples)


@pytest.mark.parametrize("seed", PUBLISHED)
def test_the_generator_gives_the_published_numbers(seed: int) -> None:
    counter = torch.arange(1, 6) * _GAMMA
    assert _mix(seed + counter).tolist() == [_signed(value) for value in PUBLISHED[seed]]


def reference(key: int, count: int) -> list[int]:
    """splitmix64.c, word for word."""
    mask, state, values = (1 << 64) - 1, key & ((1 << 64) - 1), []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        values.append(z ^ (z >> 31))
    return values


@given(seed=st.integers(0, 2**31 - 1), sample=st.integers(0, 2**40), name=st.text(max_size=8))
def test_each_sample_owns_a_stream_of_that_generator(seed: int, sample: int, name: str) -> None:
    # The stream's key is itself a number of the generator: the one after `sample` of the stream keyed by (seed, name).
    key = reference(mix(seed, name) + (sample - 1) * 0x9E3779B97F4A7C15, 1)[0]
    expected = [_signed(value) for value in reference(key, 7)]
    assert Noise(seed, torch.tensor([sample])).bits(name, 7)[0].tolist() == expected


def test_a_seed_chains_the_generator_over_its_parts() -> None:
    """So it is the same in every process, which Python's own hash of a string is not."""
    assert mix(7) == reference(7, 1)[0] >> 1
    assert mix(7, 8) == reference(reference(7, 1)[0] + 8, 1)[0] >> 1
    assert mix("123456789") == reference(0xCBF43926, 1)[0] >> 1  # the check value of CRC-32
    assert len({mix(1, "a"), mix("a", 1), mix(1, "b"), mix(2, "a"), mix(1), mix(1, 0)}) == 6


def test_uniform_numbers_are_uniform() -> None:
    values = noise(100).uniform("u", 10_000)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values, bins=100, min=0, max=1)
    chi_square = ((counts - 10_000) ** 2 / 10_000).sum()
    assert chi_square < 149  # 99 degrees of freedom: exceeded once in a thousand


def test_normal_numbers_have_the_moments_of_the_normal_distribution() -> None:
    values = noise(100).normal("z", 10_000).double()
    count = values.numel()
    # E z^k is 0, 1, 0, 3, 0, 15; its estimate has variance (E z^2k - (E z^k)^2) / n. Four standard errors.
    for power, moment, second in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (6, 15, 10395)):
        assert abs((values**power).mean() - moment) < 4 * math.sqrt((second - moment**2) / count)
    shares = [(values < edge).double().mean().item() for edge in (-3, -1, 0, 1, 3)]
    assert shares == pytest.approx([0.00135, 0.158655, 0.5, 0.841345, 0.99865], abs=2e-3)
    assert values.isfinite().all()


def test_integers_are_uniform_and_below_their_limit() -> None:
    counts = noise(100).integers("t", 7, 1000).flatten().bincount()
    expected = 100_000 / 7
    assert len(counts) == 7
    assert ((counts - expected) ** 2 / expected).sum() < 22.5  # 6 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize(
    "change", [{"samples": torch.arange(1, 50_001)}, {"seed": 1}, {"step": 2}, {"phase": "D"}], ids=lambda change: next(iter(change))
)
def test_neighbouring_streams_are_uncorrelated(change: dict[str, Any]) -> None:
    one, two = noise(50_000).normal("z", 2), noise(**({"samples": 50_000} | change)).normal("z", 2)
    correlation = torch.corrcoef(torch.cat([one, two], dim=1).T)
    assert (correlation - torch.eye(4)).abs().max() < 5 / math.sqrt(50_000)


def test_draws_of_different_names_are_uncorrelated_and_of_the_same_name_equal() -> None:
    draws = noise(50_000)
    pair = torch.stack([draws.normal("a"), draws.normal("b")])
    assert torch.corrcoef(pair)[0, 1].abs() < 5 / math.sqrt(50_000)
    assert torch.equal(draws.normal("a"), pair[0])


def test_uniform_numbers_of_neighbours_fill_the_square() -> None:
    """Correlation sees only straight lines; counts over a grid see any dependence of one sample on the next."""
    values = noise(200_001).uniform("u")
    cells = (values[:-1] * 16).long() * 16 + (values[1:] * 16).long()
    counts = cells.bincount(minlength=256)
    expected = 200_000 / 256
    assert ((counts - expected) ** 2 / expected).sum() < 331  # 255 degrees of freedom: exceeded once in a thousand


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=12), st.data())
def test_noise_does_not_depend_on_how_the_batch_is_cut(samples: list[int], data: st.DataObject) -> None:
    numbers = torch.tensor(samples)
    cut = data.draw(st.integers(0, len(samples)))
    for kind in ("uniform", "normal"):
        whole = getattr(Noise(3, numbers), kind)("z", 2, 3)
        parts = [getattr(Noise(3, part), kind)("z", 2, 3) for part in (numbers[:cut], numbers[cut:])]
        assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5)])
def test_shapes_and_types(shape: tuple[int, ...]) -> None:
    draws = noise(4)
    assert draws.normal("z", *shape).shape == (4, *shape)
    assert draws.uniform("z", *shape).shape == (4, *shape)
    assert draws.integers("z", 9, *shape).shape == (4, *shape)
    assert draws.integers("z", 9, *shape).dtype == torch.int64
    assert draws.normal("z", *shape).dtype == torch.float32


def test_more_numbers_of_a_name_begin_with_the_fewer() -> None:
    assert torch.equal(noise(5).uniform("u", 10)[:, :4], noise(5).uniform("u", 4))


KINDS = [("bits", ()), ("uniform", ()), ("normal", ()), ("integers", (97,)), ("integers", (2**31 - 1,))]


def both(monkeypatch: pytest.MonkeyPatch, samples: torch.Tensor, count: int) -> None:
    """By numpy's integers and by torch's operations, to the last bit."""
    for kind, more in KINDS:
        here = getattr(Noise(7, samples), kind)("z", *more, count)
        with monkeypatch.context() as patch:
            patch.setattr(drawing, "_drawer", lambda samples: None)
            there = getattr(Noise(7, samples), kind)("z", *more, count)
        assert here.dtype == there.dtype
        assert torch.equal(here, there), (kind, more, count)


@pytest.mark.parametrize("rows", [0, 1, 3, 64])
@pytest.mark.parametrize("count", [1, 2, 7, 255, 256, 257, 513])
def test_a_processor_draws_what_torchs_operations_do(rows: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    both(monkeypatch, torch.arange(rows) * 3 - 1, count)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_so_it_does_where_a_draw_is_cut_into_blocks(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    both(monkeypatch, torch.arange(5), noise_words._BLOCK + more)
    both(monkeypatch, torch.arange(2), 2 * noise_words._BLOCK + more)
    monkeypatch.setattr(noise_words, "_BLOCK", 16)
    both(monkeypatch, torch.arange(7), 5)
    both(monkeypatch, torch.arange(5), 33 + more)


def test_so_it_does_for_every_other_sample_and_for_large_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    both(monkeypatch, torch.arange(9)[::2], 6)
    both(monkeypatch, torch.tensor([2**62, -(2**63), 2**63 - 1]), 6)


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_numbers_of_many_names_are_those_of_each(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"a": (1, 4, 4), "b": (3,), "c": (noise_words._FEW + 2,), "d": (1,), "e": (1, 40, 40), "f": (1, 16, 16)}
    here = Noise(7, torch.arange(rows)).normals(shapes)
    monkeypatch.setattr(drawing, "_drawer", lambda samples: None)
    assert list(here) == list(shapes)
    for name, shape in shapes.items():
        assert torch.equal(here[name], Noise(7, torch.arange(rows)).normal(name, *shape)), name


def test_torchs_own_defaults_change_nothing() -> None:
    noise, shapes = Noise(7, torch.arange(4)), {"a": (6,), "b": (2, 3)}
    here = noise.normals(shapes)
    with torch.device("meta"):
        torch.set_default_dtype(torch.float64)
        try:
            there = noise.normals(shapes) | {"c": noise.normal("a", 6)}
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(here["a"], there["a"])
    assert torch.equal(here["b"], there["b"])
    assert torch.equal(here["a"], there["c"])


def test_between_two_samples_many_names_are_drawn_as_one_is() -> None:
    way = Between.of(7, torch.arange(5), 4)
    assert torch.equal(way.normals({"a": (2, 3)})["a"], way.normal("a", 2, 3))


def test_a_tensor_without_numbers_is_drawn_by_torchs_operations() -> None:
    with FakeTensorMode():
        for kind, more in KINDS:
            drawn = getattr(Noise(7, torch.arange(4)), kind)("z", *more, 6)
            assert isinstance(drawn, FakeTensor)
            assert drawn.shape == (4, 6)


@pytest.mark.filterwarnings("ignore:Dynamo")
def test_what_is_compiled_draws_the_same() -> None:
    def drawn(samples: torch.Tensor) -> torch.Tensor:
        return Noise(7, samples).normal("z", 6) + 1.0

    compiled = torch.compile(drawn, backend="eager")
    assert torch.equal(compiled(torch.arange(4)), drawn(torch.arange(4)))
