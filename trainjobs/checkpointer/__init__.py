"""Taking and restoring checkpoints of what trains."""
