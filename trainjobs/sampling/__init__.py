"""Drawing samples from what was trained, without its data, its workers and a cluster: from an export, a checkpoint or a run."""
