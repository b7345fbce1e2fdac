"""The commit log under every fault, in memory: faults at a store's operations. At a bucket's requests: tests/stores."""

from __future__ import annotations

import pytest
from commit_machine import LENIENT, CommitMachine
from hypothesis import settings


class TestCommits(CommitMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=12, deadline=None, suppress_health_check=LENIENT, derandomize=True)


@pytest.mark.slow
class TestCommitsLong(CommitMachine.TestCase):
    settings = settings(max_examples=700, stateful_step_count=40, deadline=None, suppress_health_check=LENIENT)
