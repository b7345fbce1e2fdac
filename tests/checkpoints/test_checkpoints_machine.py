"""The commit log under every fault, in memory: faults at a store's operations. At a bucket's requests: tests/stores.

GENTRAIN_EXAMPLES says how many longer runs are tried.
"""

from __future__ import annotations

import os

import pytest
from commit_machine import LENIENT, CommitMachine
from hypothesis import settings

EXAMPLES = int(os.environ.get("GENTRAIN_EXAMPLES", "250"))


class TestCommits(CommitMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=12, deadline=None, suppress_health_check=LENIENT, derandomize=True)


@pytest.mark.slow
class TestCommitsLong(CommitMachine.TestCase):
    settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=LENIENT)
