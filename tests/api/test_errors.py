from __future__ import annotations

import os
import pickle

import pytest

from trainjobs.api.errors import CODES, JobError


def test_line_states_what_where_why_how() -> None:
    error = JobError(
        "GTJ0113", "no images", where="file:///data", why="3 files, none a picture", how="point data.source at a folder of PNG files"
    )
    assert error.line() == "GTJ0113 no images (file:///data): 3 files, none a picture. point data.source at a folder of PNG files"
    assert str(error) == error.line()


def test_line_leaves_no_punctuation_for_empty_parts_and_is_one_line() -> None:
    assert JobError("GTJ0214", "ValueError:\n  bad").line() == "GTJ0214 ValueError: bad"
    assert JobError("GTJ0214", "x", how="y").line() == "GTJ0214 x. y"
    assert JobError("GTJ0112", "x", why="what a server said, with its full stop.", how="y").line().endswith("full stop. y")


def test_survives_dict_and_pickle() -> None:
    error = JobError("GTJ0211", "disk full", where="a", why="b", how="c")
    for copy in (JobError.from_dict({**error.to_dict(), "rank": 1}), pickle.loads(pickle.dumps(error))):
        assert copy.to_dict() == error.to_dict()
        assert copy.exit_code == 5


def test_unknown_code_is_our_mistake() -> None:
    with pytest.raises(KeyError):
        JobError("GTJ9999", "x")


@pytest.mark.parametrize(
    ("code", "status"), [("GTJ0103", 3), ("GTJ0113", 7), ("GTJ0114", 7), ("GTJ0115", 2), ("GTJ0116", 4), ("GTJ0117", 2), ("GTJ0206", 5)]
)
def test_exit_codes(code: str, status: int) -> None:
    assert JobError(code, "x").exit_code == status


def test_codes_are_well_formed() -> None:
    for code, entry in CODES.items():
        assert code.startswith("GTJ")
        assert len(code) == 7
        assert code[3:].isdigit()
        assert entry.title
        assert not entry.title.endswith(".")
        assert entry.exit_code in (0, 1, 2, 3, 4, 5, 6, 7)
        assert (entry.exit_code == 0) == entry.title.startswith("note: "), "what is an error ends a verb"


def test_a_code_that_the_design_gave_to_what_gtj0108_says_is_not_given_to_anything_else() -> None:
    """docs/adr/0011-codes-of-shapes-and-profiles.md."""
    assert "GTJ0122" not in CODES
    assert "more GPUs than one of its nodes has" in CODES["GTJ0108"].docs


def test_what_no_terminal_can_take_is_escaped_in_every_part() -> None:
    name = os.fsdecode(b"caf\xe9") + "\x1b[31m\u202e é 北\r"
    error = JobError("GTJ0113", name, where=name, why=name, how=name)
    shown = r"caf\xe9\x1b[31m\u202e é 北\x0d".replace("\\x0d", "\\r")
    assert (error.what, error.where, error.why, error.how) == (shown,) * 4
    error.line().encode()
    assert JobError.from_dict(error.to_dict()).what == shown, "escaped once"
    assert JobError("GTJ0214", "two\nlines\tand a tab").what == "two\nlines\tand a tab"
