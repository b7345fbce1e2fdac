"""Logs: stitched where a stream broke off, told apart by rank."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from trainjobs.cli.cluster.lines import Line, Ranks, Stitch, parsed, split

# What Ray 2.60 prints: workers through the driver's output, colours and all, and who has which rank once a group has started.
OUTPUT = """\
run folder /tmp/gentrain-1, /progress and /metrics on port 8090
\x1b[36m(RayTrainWorker pid=212, ip=10.0.0.6)\x1b[0m first words of rank 1
(TrainController pid=90) Started training worker group of size 2:
(TrainController pid=90) - (ip=10.0.0.5, pid=212) world_rank=0, local_rank=0, node_rank=0
(TrainController pid=90) - (ip=10.0.0.6, pid=212) world_rank=1, local_rank=0, node_rank=1
\x1b[36m(RayTrainWorker pid=212, ip=10.0.0.5)\x1b[0m step 1
(RayTrainWorker pid=212, ip=10.0.0.6) step 1 as rank 1 sees it
(raylet, ip=10.0.0.5) unrelated
"""


def told(only: int | None) -> list[str]:
    ranks = Ranks(only)
    return [line for text in OUTPUT.splitlines() for line in ranks.told(text)]


def test_one_rank_has_its_lines_and_those_from_before_it_was_introduced() -> None:
    assert told(0) == ["step 1"]
    assert told(1) == ["first words of rank 1", "step 1 as rank 1 sees it"]
    assert told(2) == []


def test_without_a_rank_everything_is_there_with_names_as_soon_as_they_are_known() -> None:
    lines = told(None)
    assert len(lines) == len(OUTPUT.splitlines())
    assert lines[5:7] == ["rank 0 | step 1", "rank 1 | step 1 as rank 1 sees it"]
    assert "first words of rank 1" in lines[1]


def test_a_group_that_was_started_again() -> None:
    ranks = Ranks(0)
    for pid in (7, 8):
        ranks.told(f"- (ip=10.0.0.5, pid={pid}) world_rank=0, local_rank=0, node_rank=0")
        assert ranks.told(f"(RayTrainWorker pid={pid}, ip=10.0.0.5) hello {pid}") == [f"hello {pid}"]
    assert ranks.known == [0]


def test_a_worker_on_the_drivers_node_has_no_address() -> None:
    ranks = Ranks(0)
    ranks.told("- (ip=10.0.0.5, pid=7) world_rank=0, local_rank=0, node_rank=0")
    assert ranks.told("(RayTrainWorker pid=7) here") == ["here"]
    assert ranks.told("(TrainController pid=7) somebody else") == []


def test_times_of_any_zone_and_precision() -> None:
    assert parsed("2026-11-21T09:00:00.5Z a b") == Line(1795251600_500000000, "a b")
    assert parsed("2026-11-21T10:00:00.500000000+01:00 a b") == Line(1795251600_500000000, "a b")
    assert parsed("2026-11-21T09:00:00Z ") == Line(1795251600_000000000, "")
    assert parsed("no time") == Line(None, "no time")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=7), max_size=12))
def test_lines_do_not_depend_on_where_the_pieces_end(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert list(split(pieces)) == list(split([whole]))
    assert "".join(split([whole])) == whole.decode(errors="replace")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4_000), max_size=30), st.lists(st.integers(0, 12), max_size=8))
def test_a_stream_that_breaks_off_anywhere_says_every_line_once(milliseconds: list[int], breaks: list[int]) -> None:
    """Against a kubelet that keeps the lines in the order of the file, times in disorder and equal ones included."""
    log = [Line(milli * 10**6 + 1795251600 * 10**9, f"line {number}") for number, milli in enumerate(milliseconds)]
    # Lines of a container come in the order of their times but for those of two streams within a moment.
    log.sort(key=lambda line: (line.at or 0) // (200 * 10**6))
    stitch, read = Stitch(), []
    for length in [*breaks, len(log)]:
        since = stitch.reopened()
        start = 0 if since is None else int(datetime.fromisoformat(since).replace(tzinfo=UTC).timestamp()) * 10**9
        handed = [line for line in log if line.at is not None and line.at >= start]
        read += [line.text for line in handed[:length] if stitch.new(line)]
    assert read == [line.text for line in log]
