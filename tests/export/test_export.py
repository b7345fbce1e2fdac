"""What is exported is what was saved: against the safetensors library and torch's own rounding, and nothing is left of what fails."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file
from torch import Tensor

from tests.export.ranks import saved
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Corrupt
from trainjobs.checkpoints.sieve import Sieve
from trainjobs.checkpoints.tensors import Slice, layout
from trainjobs.export.export import export
from trainjobs.export.half_precision import to_bf16, to_fp16

ROOT = Path(__file__).parents[2]


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (7, 5), "a.bias": (5,), "b": (1,), "c.scale": (), "empty": (0, 3), "d": (2, 3, 4)}
    live = {f"fp32/{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {
        **live,
        **{key.replace("fp32", "ema"): value + 1 for key, value in live.items()},
        **{key.replace("fp32", "exp_avg"): value * 0.1 for key, value in live.items()},
        "buffer/bn.running_mean": torch.randn(5, generator=generator),
        "buffer/bn.num_batches_tracked": torch.tensor(3),
    }


def of(kind: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that an export holds, by the parameters' names."""
    return {key.partition("/")[2]: value for key, value in found.items() if key.startswith((f"{kind}/", "buffer/"))}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("world", [1, 3, 8])
@pytest.mark.parametrize("weights", ["live", "ema", None])
def test_the_safetensors_library_reads_what_all_ranks_saved(world: int, weights: str | None, tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": tensors(), "other": tensors()}, world=world, ema=True)
    done = export(checkpoints, commit, tmp_path / "out", weights=weights, dtype="fp32")
    for name in ("net", "other"):
        same(load_file(tmp_path / "out" / f"{name}.safetensors"), of("fp32" if weights == "live" else "ema", tensors()))
    assert (done.weights, done.networks, done.hugging_face) == (weights or "ema", ("net", "other"), False)
    facts = json.loads((tmp_path / "out" / "gentrain.json").read_text())
    assert (facts["family"], facts["step"], facts["digest"]) == ("diffusion", 7, commit.manifest_digest)
    assert facts["networks"] == {"net": ["net.safetensors"], "other": ["other.safetensors"]}
    assert "mine" not in str(facts)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gentrain.json", "net.safetensors", "other.safetensors"]


def test_networks_that_are_not_averaged_are_as_they_were_trained(tmp_path: Path) -> None:
    """A discriminator beside its generator."""
    live = {key: value for key, value in tensors().items() if not key.startswith("ema/")}
    checkpoints, commit = saved(tmp_path, {"d": live, "g": tensors()}, ema=True, averaged=["g"])
    done = export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32")
    same(load_file(tmp_path / "out" / "g.safetensors"), of("ema", tensors()))
    same(load_file(tmp_path / "out" / "d.safetensors"), of("fp32", live))
    assert (done.weights, done.networks, done.live) == ("ema", ("d", "g"), ("d",))
    assert json.loads((tmp_path / "out" / "gentrain.json").read_text())["averaged"] == ["g"]
    assert export(checkpoints, commit, tmp_path / "live", weights="live", dtype="fp32").live == ()


def test_without_an_average_the_weights_themselves(tmp_path: Path) -> None:
    live = {key: value for key, value in tensors().items() if not key.startswith("ema/")}
    checkpoints, commit = saved(tmp_path, {"net": live})
    assert export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32").weights == "live"
    same(load_file(tmp_path / "out" / "net.safetensors"), of("fp32", live))
    with pytest.raises(JobError, match="GTJ0108"):
        export(checkpoints, commit, tmp_path / "more", weights="ema", dtype="fp32")


@pytest.mark.parametrize(("dtype", "of_torch"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_torchs(dtype: str, of_torch: torch.dtype, tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": tensors()})
    export(checkpoints, commit, tmp_path / "out", weights="live", dtype=dtype)
    expected = {name: value.to(of_torch) if value.is_floating_point() else value for name, value in of("fp32", tensors()).items()}
    same(load_file(tmp_path / "out" / "net.safetensors"), expected)


def test_rounding_of_every_kind_of_number() -> None:
    bits = torch.randint(-(2**31), 2**31 - 1, (100_000,), generator=torch.Generator().manual_seed(1)).int()
    ties = torch.arange(-(2**31), 2**31 - 2**15, 2**15, dtype=torch.int64).int()  # halfway between two of bf16, NaN and infinity among them
    values = torch.cat([bits, ties]).view(torch.float32)
    ours = torch.frombuffer(bytearray(to_bf16(memoryview(values.numpy().tobytes()))), dtype=torch.bfloat16)
    assert torch.equal(ours.isnan(), values.isnan())
    assert torch.equal(ours[~values.isnan()], values.bfloat16()[~values.isnan()])
    small = torch.cat([values[values.abs() < 60000], torch.tensor([float("inf"), float("nan")])])
    ours = torch.frombuffer(bytearray(to_fp16(memoryview(small.numpy().tobytes()))), dtype=torch.float16)
    assert torch.equal(ours[:-1], small.half()[:-1])
    assert ours[-1].isnan()


def test_numbers_that_fp16_has_not_are_refused(tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": {"fp32/w": torch.tensor([1.0, -70000.0])}})
    with pytest.raises(JobError, match=r"GTJ0108.*7e\+04"):
        export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["staged", "store"]


def test_large_networks_are_several_files_with_an_index(tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": tensors()})
    export(checkpoints, commit, tmp_path / "out", weights="live", dtype="fp32", limit=100)
    index = json.loads((tmp_path / "out" / "net.safetensors.index.json").read_text())
    names = sorted(set(index["weight_map"].values()))
    assert len(names) > 2
    assert names[0] == f"net-00001-of-{len(names):05}.safetensors"
    found: dict[str, Tensor] = {}
    for name in names:
        with safe_open(tmp_path / "out" / name, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
            found |= {key: file.get_tensor(key) for key in list(file.keys())}
            assert all(index["weight_map"][key] == name for key in list(file.keys()))
    same(found, of("fp32", tensors()))
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in found.values())


def test_blocks_may_end_anywhere() -> None:
    values = torch.arange(23, dtype=torch.float32)
    slices = [Slice("x", "F32", (23,), 0, 23), Slice("skip", "I64", (2,), 0, 2), Slice("y", "F32", (100,), 40, 23)]
    found = layout(slices)
    data = {"x": values, "y": values + 100, "skip": torch.zeros(2, dtype=torch.int64)}
    file = found.header + b"".join(data[slice.key].numpy().tobytes() for slice in found.slices)
    assert load(file)["x"].equal(values)
    for size in (1, 3, 7, 64, 100_000):
        taken = {"x": torch.full((23,), torch.nan), "y": torch.full((100,), torch.nan)}

        def take(slice: Slice, first: int, piece: memoryview, taken: dict[str, Tensor] = taken) -> None:
            numbers = torch.frombuffer(bytearray(piece), dtype=torch.float32)
            taken[slice.key][first : first + len(numbers)] = numbers

        sieve = Sieve(found, {"x", "y"}, take)
        for begin in range(0, len(file), size):
            sieve.feed(file[begin : begin + size])
        assert sieve.fits
        assert taken["x"].equal(values)
        assert taken["y"][40:63].equal(values + 100)
        assert taken["y"].isnan().sum() == 77


def test_a_flipped_byte_anywhere_is_found_and_named(tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": tensors()}, world=2)
    files = [path for path in (tmp_path / "store" / commit.prefix).rglob("*") if path.is_file()]
    assert len(files) == 2 * 3 + 1
    for path in files:
        whole = path.read_bytes()
        for at in {0, 9, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
            with pytest.raises(Corrupt, match="GTJ0209") as raised:
                export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32")
            assert raised.value.file == path.relative_to(tmp_path / "store").as_posix()
            assert sorted(left.name for left in tmp_path.iterdir()) == ["staged", "store"]
        path.write_bytes(whole)
    export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32")


def test_elements_that_nobody_saved_are_missed(tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": {"fp32/w": torch.arange(9.0)}}, lost=1)
    with pytest.raises(Corrupt, match=r"GTJ0209.*elements 8 to 9 of fp32/w are missing"):
        export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": tensors()})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(JobError, match=r"GTJ0114.*not empty"):
        export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32")
    (tmp_path / "out" / "mine").unlink()
    export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32")
    assert load_file(tmp_path / "out" / "net.safetensors")


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    saved(tmp_path, {"net": {"fp32/w": torch.zeros(300_000)}})
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    gtj = [sys.executable, "-m", "trainjobs.cli.main", "checkpoints", "export", f"file://{tmp_path}/store"]
    show = f"; echo status $? left $(ls {shlex.quote(str(disk))})"
    script = f"mount -t tmpfs -o size=1m tmpfs {shlex.quote(str(disk))}; {shlex.join([*gtj, str(disk / 'out')])}{show}"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"}
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert "GTJ0114" in done.stderr
    assert "No space left on device" in done.stderr
    assert done.stdout.strip() == "status 7 left"


@pytest.mark.slow
def test_the_command_imports_no_torch_and_says_what_it_wrote(tmp_path: Path) -> None:
    checkpoints, commit = saved(tmp_path, {"net": tensors()}, ema=True)
    program = (
        "import sys\nfrom trainjobs.cli.main import main\nstatus = 0\n"
        "try:\n    status = main()\nexcept SystemExit as end:\n    status = end.code\n"
        "assert not {'torch', 'numpy', 'transformers', 'safetensors'} & set(sys.modules)\nsys.exit(status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"}
    words = ["checkpoints", "export", checkpoints.uri(commit), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 7  moving average  fp32  net  ")
    assert "plain safetensors" in done.stdout
