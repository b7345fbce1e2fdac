"""The commit log under faults at every single request: in memory, and the same driver on real servers. The long campaign: campaign.py.

GENTRAIN_EXAMPLES says how many runs every server sees, GENTRAIN_SEED repeats what one met.
"""

from __future__ import annotations

import os
import secrets

import pytest
from commit_machine import LENIENT
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stores.campaign import PARTS
from tests.stores.places import FAULTS, memory_machine, server_machine
from tests.stores.servers import Service

EXAMPLES = int(os.environ.get("GENTRAIN_EXAMPLES", "40"))


class TestInMemory(memory_machine().TestCase):
    settings = settings(max_examples=20, stateful_step_count=8, deadline=None, suppress_health_check=LENIENT, derandomize=True)


@pytest.mark.slow
def test_a_hundred_runs_in_memory() -> None:
    machine = memory_machine()
    chosen = settings(max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=LENIENT, database=None)
    run_state_machine_as_test(machine, settings=chosen)
    assert machine.runs >= 100
    assert set(FAULTS) <= set(machine.injected), "a kind of fault was never injected"


@pytest.mark.slow
def test_forty_runs_on_every_server(server: Service) -> None:
    machine = server_machine(server, PARTS[server.name])
    chosen = settings(max_examples=EXAMPLES, stateful_step_count=3, deadline=None, suppress_health_check=LENIENT, database=None)
    number = int(os.environ.get("GENTRAIN_SEED", str(secrets.randbelow(2**32))))
    print(f"seed {number}")
    while machine.runs < EXAMPLES or machine.injected.total() < 10:  # a seed may draw hardly any fault
        assert machine.runs < 10 * EXAMPLES
        run_state_machine_as_test(seed(number)(machine), settings=chosen)
        number += 1
