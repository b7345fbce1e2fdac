"""Gentrain's jobs and their training: the manifest, the loop, the model families, checkpoints and the command line."""
