"""The run folder: who writes what, who reads it."""
