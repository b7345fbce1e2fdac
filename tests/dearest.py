"""The files of tests that take longest, from the dearest: they begin first, so that none of them is left over when all others are done.

pytest-xdist would begin with the files that have the most tests; the dearest have a few, of which each takes a minute.
"""

from __future__ import annotations

DEAREST = (
    "e2e_local/test_elastic.py",
    "e2e_local/test_families.py",
    "checkpoints/test_checkpoints_machine.py",
    "stores/test_store_machine.py",
    "faults/test_kill.py",
    "test_docs.py",
    "equivalence/test_carried.py",
    "equivalence/test_gan_matrix.py",
    "e2e_local/test_bad_disk.py",
    "e2e_local/test_bad_training.py",
    "equivalence/test_resume.py",
    "faults/test_endurance.py",
    "e2e_local/test_stall.py",
    "e2e_local/test_two_nodes.py",
    "equivalence/test_denoised.py",
    "stores/test_store_wire.py",
    "equivalence/test_other_world.py",
    "equivalence/test_zero_matrix.py",
    "e2e_local/test_prove.py",
    "integration/test_crash_sweep.py",
    "integration/test_kueue_killed.py",
    "integration/test_karpenter.py",
    "e2e_local/test_bad_input.py",
    "e2e_local/test_store_away.py",
    "data/real/test_real_data.py",
    "test_loop_quality.py",
    "equivalence/test_classes.py",
    "equivalence/test_cut.py",
    "e2e_local/test_own_model.py",
    "silence/test_silence.py",
    "stores/test_store_run.py",
    "equivalence/test_rollback.py",
    "equivalence/test_initial_weights.py",
    "checkpoints/test_checkpoints_kill.py",
    "chart/test_chart_rbac.py",
    "e2e_local/test_gpus.py",
    "cli/test_run_command.py",
    "e2e_local/test_objective_state.py",
    "integration/test_kueue.py",
    "operator/test_scale.py",
    "checkpointer/test_restorer_before.py",
    "e2e_local/test_sigterm.py",
    "equivalence/test_from_another_run.py",
)


def turn(path: str) -> int:
    """When a file is due, by its path below tests/."""
    return DEAREST.index(path) if path in DEAREST else len(DEAREST)
