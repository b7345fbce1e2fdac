"""Watches over a GAN: each definition by its figures; and real runs, of which the troubled ones are told and the healthy one is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group

from trainjobs.api.errors import JobError
from trainjobs.evaluate.spread import DISTANCE, MOVED, SPREAD, Memory, Spread
from trainjobs.monitor.watches import NORM, GanWatches
from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

ALONE = World(0, 1, torch.device("cpu"))


def said(watches: GanWatches) -> list[str]:
    return [error.what for error in watches.news()]


# --- what is measured ---------------------------------------------------------------------------------------------------------------


def measured(made: torch.Tensor, real: torch.Tensor, memory: Memory) -> dict[str, float]:
    score = Spread(memory)
    score.add(None, Samples(points=made[:2]))
    score.add(None, Samples(points=made[2:]))
    score.add(Batch({"point": real}, None, len(real)), None)  # type: ignore[arg-type]
    return dict(score.result(ALONE))


def test_spread_movement_and_distance_are_known_for_known_points() -> None:
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    apart = (4 * 2 + 2 * 8**0.5) / 6
    memory = Memory()
    first = measured(square / 4, square, memory)
    assert first[SPREAD] == pytest.approx(0.25)
    assert MOVED not in first
    second = measured(square / 4 + torch.tensor([3.0, 4.0]), square, memory)
    assert second[MOVED] == pytest.approx(5.0 / (apart / 4))
    same = measured(square, square, Memory())
    assert same[DISTANCE] == pytest.approx((2 * 6 / 16 * apart * 2 - 2 * apart) / apart)  # pairs of one with itself count in the first term
    assert first[DISTANCE] > same[DISTANCE]


def test_images_are_seen_at_eight_pixels() -> None:
    score = Spread(Memory())
    score.add(None, Samples(images=torch.cat([torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)])))
    score.add(Batch({"image": torch.randn(4, 1, 32, 32)}, None, 4), None)  # type: ignore[arg-type]
    assert score.before.samples is None
    score.result(ALONE)
    assert score.before.samples is not None
    assert score.before.samples.shape == (2, 64)


# --- what is told -------------------------------------------------------------------------------------------------------------------


def test_a_collapse_is_told_once_at_three_evaluations_running_and_again_when_it_comes_back() -> None:
    watches = GanWatches(wasserstein=False)
    for step in (10, 20, 30, 40, 50):  # it has not begun to learn
        watches.evaluated(step, {SPREAD: 0.01})
    assert said(watches) == []
    for spread in (0.8, 0.2, 0.2, 0.26, 0.2, 0.2):
        watches.evaluated(60, {SPREAD: spread})
    assert said(watches) == []
    watches.evaluated(70, {SPREAD: 0.12})
    (what,) = said(watches)
    assert what == "the generator has collapsed: samples differ by 12 % of what data differ by"
    assert isinstance(watches.collapse, JobError)
    watches.evaluated(80, {SPREAD: 0.12})
    assert said(watches) == []
    watches.evaluated(90, {SPREAD: 0.9})
    assert watches.collapse is None
    for _ in range(3):
        watches.evaluated(100, {SPREAD: 0.1})
    assert len(said(watches)) == 1


def test_a_generator_that_never_spread_is_told_from_step_500_on() -> None:
    watches = GanWatches(wasserstein=True)
    for step in range(0, 700, 50):
        watches.evaluated(step, {SPREAD: 0.01})
    assert len(said(watches)) == 1


def test_lost_modes_are_a_collapse() -> None:
    watches = GanWatches(wasserstein=False)
    for modes in (8.0, 3.0, 3.0, 3.0):
        watches.evaluated(10, {SPREAD: 0.9, "modes": modes})
    assert said(watches) == ["the generator has collapsed: 3 of 8 modes are left"]


def test_an_oscillation_moves_and_comes_no_nearer() -> None:
    nearer, standing = GanWatches(wasserstein=False), GanWatches(wasserstein=False)
    for number in range(8):
        nearer.evaluated(number, {SPREAD: 0.8, MOVED: 1.5, DISTANCE: 0.8**number})
        standing.evaluated(number, {SPREAD: 0.8, MOVED: 1.5, DISTANCE: 0.3 - 0.001 * number})
    assert said(nearer) == []
    (what,) = said(standing)
    assert what == "the networks chase each other: samples of the same latents moved 1.5 times as far as they differ"
    for watches, scores in ((nearer, {SPREAD: 0.8, MOVED: 0.9, DISTANCE: 0.3}), (standing, {SPREAD: 0.1, MOVED: 5.0, DISTANCE: 0.3})):
        for _ in range(2):
            watches.evaluated(9, scores)
        assert said(watches) == []


def test_fid_decides_in_place_of_the_samples_distance_as_soon_as_it_is_there() -> None:
    """It stands while samples come nearer, and falls while they stand; beside training it comes an evaluation later."""

    def after(fids: list[float], distances: list[float], *, late: bool) -> list[str]:
        watches, before, told = GanWatches(wasserstein=False, by="fid"), {}, list[str]()
        for number, (fid, distance) in enumerate(zip(fids, distances, strict=True)):
            figures = {"fid/digits": fid, "kid/digits": 0.5**number}
            scores = {SPREAD: 0.8, MOVED: 1.5, DISTANCE: distance}
            watches.evaluated(number, scores if late else scores | figures, before if late else {})
            before = figures
            told += [f"{number}: {error.why}" for error in watches.news()]
        return told

    standing, nearer = [30.0, 30.0, 29.0, 30.0, 30.0, 30.0], [0.8**number for number in range(6)]
    why = "at 3 evaluations running, while fid/digits stood at 30"
    assert after(standing, nearer, late=False) == [f"3: {why}"]
    assert after(standing, nearer, late=True) == [f"4: {why}"]
    assert after(nearer, standing, late=False) == after(nearer, standing, late=True) == []


def test_kid_around_zero_is_no_progress() -> None:
    watches = GanWatches(wasserstein=False, by="kid")
    for number, kid in enumerate((0.001, -0.002, 0.0005, -0.001, 0.0)):
        watches.evaluated(number, {SPREAD: 0.8, MOVED: 1.5, "kid/random": kid})
    assert len(said(watches)) == 1


def test_a_vanished_gradient_needs_a_sure_discriminator() -> None:
    def after(norm: float, accuracy: float, *, wasserstein: bool = False) -> list[str]:
        watches = GanWatches(wasserstein)
        for _ in range(10):
            watches.adapt({NORM: 2.0, "accuracy/D": 0.8})
        for _ in range(200):  # it does not become usual
            watches.adapt({NORM: norm, "accuracy/D": accuracy})
        return said(watches)

    assert after(0.0019, 0.995) == ["the generator's gradient has vanished: its norm is 0.0019, and was 2"]
    assert after(0.0021, 0.995) == after(0.0019, 0.98) == after(0.0019, 0.995, wasserstein=True) == []


def test_augmentation_above_four_fifths_is_told() -> None:
    watches = GanWatches(wasserstein=False)
    for p in (0.79, 0.81, 0.9):
        watches.adapt({"augment/p": p})
    assert said(watches) == ["augmentation has reached p = 0.81"]


def test_counts_go_on_from_a_commit() -> None:
    watches = GanWatches(wasserstein=False)
    for spread in (0.8, 0.2, 0.2):
        watches.evaluated(10, {SPREAD: spread})
    for _ in range(5):
        watches.adapt({NORM: 2.0, "accuracy/D": 0.8})
    again = GanWatches(wasserstein=False)
    again.load_state(json.loads(json.dumps(watches.state())))
    again.evaluated(20, {SPREAD: 0.2})
    again.adapt({NORM: 0.001, "accuracy/D": 1.0})
    assert len(said(again)) == 2


# --- real runs ----------------------------------------------------------------------------------------------------------------------

MLP = {"architecture": "mlp", "channels": 32, "layers": 2}
ADAM = {"name": "adam", "betas": [0.5, 0.9]}


def job(steps: int, loss: dict[str, Any], rates: tuple[float, float], recovery: dict[str, Any] | None = None, **gan: Any) -> dict[str, Any]:
    optimizers = {"generator": {**ADAM, "learningRate": rates[0]}, "discriminator": {**ADAM, "learningRate": rates[1]}}
    networks = {"generator": {**MLP, "latentDim": 2, "normalization": "none"}, "discriminator": MLP}
    spec: dict[str, Any] = {
        "gan": {**networks, "loss": loss, **gan},
        "data": {"source": "builtin:ring"},
        "training": {"steps": steps, "batch": {"global": 32}, "optimizers": optimizers},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 1, "everySteps": 50, "metrics": ["modes"]},
        "checkpoints": {"every": {"steps": steps}},
        "recovery": recovery or {},
    }
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "test"}, "spec": spec}


SATURATED = {"type": "minimax"}, (1e-5, 1e-2)  # a discriminator a thousand times as fast
R1 = {"r1": {"gamma": 1.0, "every": 1}}
HEALTHY: dict[str, tuple[dict[str, Any], tuple[float, float], dict[str, Any]]] = {
    **{kind: ({"type": kind}, (1e-3, 1e-3), R1) for kind in ("bce", "minimax", "lsgan", "hinge")},
    "wgan-gp": ({"type": "wgan-gp", "gradientPenalty": 1.0, "criticSteps": 2}, (1e-3, 2e-3), {}),
}


def digits() -> dict[str, Any]:
    """A critic that nothing holds, watched by FID, which is computed beside training."""
    found = job(80, {"type": "wgan", "weightClip": 10.0}, (3e-2, 3e-2))
    network = {"architecture": "dcgan", "channels": 8}
    found["spec"]["gan"] |= {"generator": {**network, "latentDim": 4}, "discriminator": network}
    found["spec"]["data"] = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
    found["spec"]["training"]["batch"] = {"global": 16}
    found["spec"]["evaluation"] = {"samples": 1, "everySteps": 10, "metrics": ["fid"], "fidSamples": 128}
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, one after another in one process; the last is to end with an error."""
    root = tmp_path_factory.mktemp("watched")
    jobs = {
        **{name: job(300, loss, rates, regularization=beside) for name, (loss, rates, beside) in HEALTHY.items()},
        "chase": job(300, {"type": "wgan", "weightClip": 10.0}, (5e-3, 5e-3)),  # a critic that nothing holds
        "digits": digits(),
        "halted": job(650, *SATURATED, recovery={"onCollapse": "halt"}),
    }
    for name, manifest in jobs.items():
        (root / name).mkdir()
        (root / name / "job.json").write_text(json.dumps(manifest))
    with pytest.raises(AssertionError, match="GTJ0220 the generator has collapsed"):
        group.run_group(1, [str(root / name) for name in jobs], root, script="at_once.py")
    return root


def warnings(run: Path) -> list[str]:
    events = map(json.loads, (run / "attempts.jsonl").read_text().splitlines())
    return [event["message"] for event in events if event["event"] == "warning"]


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_told_nothing(name: str, runs: Path) -> None:
    assert warnings(runs / name) == []
    assert json.loads((runs / name / "progress.json").read_text()).get("warning") is None
    assert group.losses(runs / name, SPREAD)[-1] > 0.5


@pytest.mark.slow
def test_networks_that_chase_each_other_are_told(runs: Path) -> None:
    assert any("the networks chase each other" in message for message in warnings(runs / "chase"))


@pytest.mark.slow
def test_networks_that_chase_each_other_are_told_by_a_measured_fid(runs: Path) -> None:
    """By the definition, over what the run wrote down: three evaluations running of samples that move and a FID that stands."""
    name, figures = "fid/digits", dict[int, dict[str, float]]()
    for row in map(json.loads, (runs / "digits" / "metrics.jsonl").read_text().splitlines()):
        figures.setdefault(row["step"], {}).update({key: row[key] for key in (MOVED, name, DISTANCE) if key in row})
    looks = [(step, row) for step, row in sorted(figures.items()) if MOVED in row and name in row]

    def told(by: str) -> list[tuple[int, str]]:
        running, least, found = 0, float("inf"), []
        for step, row in looks:
            running = running + 1 if row[MOVED] > 1.0 and row[by] >= 0.9 * least else 0
            least = min(least, row[by]) if running else row[by]
            if running == 3:
                found.append((step, f"{by} stood at {row[by]:.3g}"))
        return found

    chased = [message for message in warnings(runs / "digits") if "the networks chase each other" in message]
    assert [words in message for message, (_, words) in zip(chased, told(name), strict=True)] == [True]
    assert {step for step, _ in told(name)}.isdisjoint(step for step, _ in told(DISTANCE)), "the samples' distance would have told the same"


@pytest.mark.slow
def test_a_saturated_minimax_game_and_its_collapse_are_told_and_stand_in_the_status(runs: Path) -> None:
    told = warnings(runs / "halted")
    assert ["the generator's gradient has vanished" in told[0], "the generator has collapsed" in told[-1]] == [True, True]
    assert len(told) == 2
    assert json.loads((runs / "halted" / "progress.json").read_text())["warning"].startswith("GTJ0220 ")


@pytest.mark.slow
def test_halt_ends_the_run_behind_a_checkpoint(runs: Path) -> None:
    assert group.losses(runs / "halted", "samples")[-1] == 600 * 32
    records = [json.loads(path.read_text()) for path in (runs / "halted" / "checkpoints" / "log").glob("*.json")]
    assert [record["body"]["step"] for record in records if record["kind"] == "commit"] == [600]
