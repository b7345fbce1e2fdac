"""The files of tests that take longest, from the dearest: they begin first, so that none of them is left over when all others are done.

pytest-xdist would begin with the files that have the most tests; the dearest have a few, of which each takes a minute.
"""

from __future__ import annotations

DEAREST = (
    "e2e_local/test_families.py",
    "equivalence/test_resume.py",
    "equivalence/test_carried.py",
    "equivalence/test_zero_matrix.py",
    "equivalence/test_other_world.py",
    "test_docs.py",
    "e2e_local/test_bad_training.py",
    "e2e_local/test_bad_disk.py",
    "e2e_local/test_prove.py",
    "silence/test_silence.py",
    "test_loop_quality.py",
    "cli/test_run_command.py",
    "integration/test_kueue.py",
    "integration/test_kueue_kuberay.py",
    "e2e_local/test_elastic.py",
    "operator/test_scale.py",
    "equivalence/test_classes.py",
    "equivalence/test_cut.py",
    "equivalence/test_initial_weights.py",
    "equivalence/test_rollback.py",
    "integration/test_operator_weather.py",
    "integration/test_operator_faults.py",
    "objectives/test_objectives_overfit.py",
    "e2e_local/test_two_nodes.py",
    "e2e_local/test_store_away.py",
)


def turn(path: str) -> int:
    """When a file is due, by its path below tests/."""
    return DEAREST.index(path) if path in DEAREST else len(DEAREST)
