"""Which checkpoint a run goes back to and what it takes out of it: plain tensors, a store in a folder, ranks one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.checkpointer.one_weight import SHAPE, Adaptive, Average, Engine, Run, engine
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Corrupt
from trainjobs.engine.parts import Part, part
from trainjobs.state import State


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # no power cut here, and it is nearly all of the time
    return Run(tmp_path)


def test_where_nothing_was_committed_there_is_nothing_to_go_back_to(run: Run) -> None:
    fresh = Engine()
    for source in ("latest", "none"):
        assert run.restore(fresh, source) == (None, State())
    assert fresh.asked == []


def test_the_newest_is_taken_with_all_that_it_holds(run: Run) -> None:
    run.save(10, [engine(1.0)])
    newest = run.save(20, [engine(2.0)])
    fresh, saved = Engine(), engine(2.0)
    assert run.restore(fresh) == (newest, State(20, 160))
    assert torch.equal(fresh.weight, saved.weight)
    assert torch.equal(fresh.buffer, saved.buffer)
    assert torch.equal(fresh.state["exp_avg"], saved.state["exp_avg"])
    assert fresh.state["step"].item() == 2.0
    assert fresh.asked == [{"exp_avg": ("F32", False), "step": ("F32", True)}, "publish"]
    assert run.warned == []


def test_going_back_in_front_of_a_commit(run: Run) -> None:
    first, second, third = (run.save(step, [engine(float(step))]) for step in (10, 20, 30))
    assert run.restore(Engine(), before=third)[0] == second
    assert run.restore(Engine(), before=second)[0] == first
    run.checkpoints.quarantine(second, "no")
    assert run.restore(Engine(), before=third)[0] == first
    assert run.restore(Engine(), before=first)[0] == third, "there is none before it"


@pytest.mark.parametrize("name", ["net.safetensors", "index.json"])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_taken(name: str, run: Run) -> None:
    whole, broken = run.save(10, [engine(1.0)]), run.save(20, [engine(2.0)])
    run.damage(broken, name)
    fresh = Engine()
    assert run.restore(fresh) == (whole, State(10, 80))
    assert torch.equal(fresh.weight, engine(1.0).weight)
    (warning,) = run.warned
    assert (warning.code, warning.where) == ("GTJ0209", f"{broken.prefix}/rank-0/{name}")
    assert "step 20" in warning.what
    assert [status.state for status in run.checkpoints.commits()] == ["live", "corrupt"]
    assert run.restore(Engine())[0] == whole
    assert len(run.warned) == 1, "for ever: nobody reads it again"


def test_damage_that_another_rank_has_found_counts_for_all(run: Run) -> None:
    """And what the others could not do is raised here as well, where nothing has been filled in."""
    commit = run.save(10, [engine(1.0)])
    fresh = Engine()
    with pytest.raises(JobError, match="no checkpoint of this run is whole"):
        run.restore(fresh, said=(Corrupt(f"{commit.prefix}/rank-1/x", "is missing"),))
    assert run.checkpoints.commits()[0].why == f"{commit.prefix}/rank-1/x: is missing"
    again = run.save(20, [engine(1.0)])
    with pytest.raises(OSError, match="No space"):
        run.restore(fresh, said=(OSError(28, "No space left on device"),))
    assert not fresh.weight.any()
    assert run.checkpoints.newest() == again


def test_where_damage_took_all_the_user_decides(run: Run) -> None:
    commits = [run.save(step, [engine(1.0)]) for step in (10, 20)]
    for commit in commits:
        run.damage(commit, "net.safetensors")
    with pytest.raises(JobError, match="no checkpoint of this run is whole") as refused:
        run.restore(Engine())
    assert refused.value.code == "GTJ0209"
    assert all(commit.prefix in str(refused.value.where) for commit in commits)
    assert "--fresh" in str(refused.value.how)
    assert run.restore(Engine(), "none", since=101.0)[0] is None, "a run that asks for none has lost none"


def test_a_damaged_record_of_the_log_may_have_been_a_newer_checkpoint(run: Run) -> None:
    first = run.save(10, [engine(1.0)])
    run.save(20, [engine(2.0)])
    log = sorted((run.folder / "store" / "log").iterdir())
    log[-1].write_text("{}")
    assert run.restore(Engine())[0] == first
    (warning,) = run.warned
    assert (warning.code, warning.what) == ("GTJ0209", "a newer checkpoint may be lost")
    assert Path(str(warning.where)).stem == log[-1].stem
    for path in log:
        path.write_text("{}")
    with pytest.raises(JobError, match="no checkpoint of this run is whole"):
        run.restore(Engine())


def test_a_uri_says_where_a_run_starts_until_it_has_a_checkpoint_of_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Run(tmp_path / "other")
    theirs = other.save(50, [engine(5.0)])
    run.save(10, [engine(1.0)])  # at 100 s, by a run before this one
    run.time = 200.0
    named = f"{other.uri}/{theirs.prefix}"
    fresh = Engine()
    assert run.restore(fresh, named, since=150.0) == (theirs, State(50, 400))
    assert torch.equal(fresh.weight, engine(5.0).weight)
    assert run.restore(Engine(), other.uri, since=150.0)[0] == theirs, "a run's URI means its newest"
    assert run.restore(Engine(), "none", since=150.0)[0] is None
    own = run.save(60, [engine(6.0)])
    for source in (named, other.uri, "none", "latest"):
        assert run.restore(Engine(), source, since=150.0)[0] == own


def test_damage_of_the_one_checkpoint_that_is_named_is_the_users_to_mend(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Run(tmp_path / "other")
    other.save(40, [engine(4.0)])
    theirs = other.save(50, [engine(5.0)])
    other.damage(theirs, "net.safetensors")
    with pytest.raises(JobError, match=r"GTJ0209.*step 50 is corrupt.*this one checkpoint") as refused:
        run.restore(Engine(), f"{other.uri}/{theirs.prefix}", since=0.0)
    assert "resumeFrom" in str(refused.value.how)
    assert [status.state for status in other.checkpoints.commits()] == ["live", "live"], "another run's commits are not set aside"
    with pytest.raises(JobError, match="GTJ0118"):
        run.restore(Engine(), f"{other.uri}/steps/000000000099-a1", since=0.0)


def test_a_checkpoint_of_another_shape_is_named_and_leaves_all_as_it_was(run: Run) -> None:
    commit = run.save(10, [engine(1.0, shape=(2, 6))])
    fresh = Engine()
    with pytest.raises(JobError, match=r"GTJ0208.*net\.w is \[2, 6\] there and \[3, 4\] here") as refused:
        run.restore(fresh)
    assert refused.value.where == commit.prefix
    assert not fresh.weight.any()
    assert "publish" not in fresh.asked
    assert run.checkpoints.newest() == commit, "it is whole, and is another run's to use"


def test_another_optimizer_begins_anew_where_that_is_allowed(run: Run) -> None:
    run.save(10, [engine(1.0)])
    fresh = engine(7.0, optimizer="sgd")
    with pytest.raises(JobError, match=r"GTJ0208.*net: adamw there, sgd here"):
        run.restore(fresh)
    run.restore(fresh, reset=True)
    assert torch.equal(fresh.weight, engine(1.0).weight)
    assert fresh.state == {}
    assert fresh.asked == ["forget", "publish"]


def test_a_moving_average_is_restored_or_begins_at_the_weights(run: Run) -> None:
    run.save(10, [engine(1.0)])
    average = Average()
    with pytest.raises(JobError, match=r"GTJ0208.*no moving average there"):
        run.restore(Engine(), ema=average)
    run.restore(Engine(), ema=average, reset=True)
    assert average.restarted

    class Averaging(Engine):
        def parts(self, *, own: bool) -> Iterator[Part]:
            yield from super().parts(own=own)
            yield part("ema/w", torch.arange(12.0), SHAPE)

    run.save(20, [Averaging()], ema=True)
    average = Average()
    run.restore(Engine(), ema=average)
    assert not average.restarted
    assert torch.equal(average.values, torch.arange(12.0))

    anew = Average()
    run.restore(engine(7.0, optimizer="sgd"), ema=anew, reset=True)
    assert anew.restarted, "the average begins anew with the optimizer"


def test_an_objective_gets_the_state_that_was_kept_with_the_weights(run: Run) -> None:
    objective = Adaptive()
    run.save(10, [engine(1.0)])
    run.restore(Engine(), objective=objective)
    assert objective.kept is None
    run.save(20, [engine(1.0)], objective={"p": 0.25})
    run.restore(Engine(), objective=objective)
    assert objective.kept == {"p": 0.25}


def test_weights_that_checkpoints_leave_out_have_to_be_the_same(run: Run) -> None:
    run.save(10, [engine(1.0)], frozen="sha256:a")
    run.restore(Engine(), identity={"frozen": "sha256:a"})
    with pytest.raises(JobError, match=r"GTJ0208.*weights that are not trained"):
        run.restore(Engine(), identity={"frozen": "sha256:b"})


@pytest.mark.parametrize("saved", [[(0, 12)], [(0, 6), (6, 12)], [(0, 5), (5, 10), (10, 12)]])
@pytest.mark.parametrize("mine", [[(0, 12)], [(0, 6), (6, 12)], [(0, 4), (4, 8), (8, 12)], [(0, 12), (0, 12)]])
def test_any_number_of_workers_goes_on_from_any_other(saved: list[tuple[int, int]], mine: list[tuple[int, int]], run: Run) -> None:
    """The last of `mine` is stage 0, where every rank has all."""
    run.save(10, [engine(1.0, *span) for span in saved])
    whole = engine(1.0)
    for rank, (start, end) in enumerate(mine):
        fresh = Engine(start, end)
        run.restore(fresh, rank=rank, size=len(mine))
        assert torch.equal(fresh.weight, whole.weight[start:end])
        assert torch.equal(fresh.state["exp_avg"], whole.state["exp_avg"][start:end])


def test_buffers_are_the_ranks_own_where_as_many_workers_saved_them(run: Run) -> None:
    """Running statistics of batch norm differ from rank to rank."""
    ranks = [engine(1.0, 0, 6), engine(1.0, 6, 12)]
    ranks[1].buffer.fill_(9.0)
    run.save(10, ranks)
    for rank, size, expected in ((0, 2, 1.0), (1, 2, 9.0), (0, 1, 1.0), (2, 3, 1.0)):
        fresh = Engine(0, 4)
        run.restore(fresh, rank=rank, size=size)
        assert fresh.buffer.tolist() == [expected, expected]


def test_a_rank_fetches_no_files_that_it_needs_nothing_of(run: Run) -> None:
    """Damage to another rank's file is that rank's to find."""
    commit = run.save(10, [engine(1.0, 0, 6), engine(1.0, 6, 12)])
    run.damage(commit, "net.safetensors", rank=1)
    assert run.restore(Engine(0, 6), rank=0, size=2)[0] == commit
    with pytest.raises(JobError, match="no checkpoint of this run is whole"):
        run.restore(Engine(6, 12), rank=1, size=2)
