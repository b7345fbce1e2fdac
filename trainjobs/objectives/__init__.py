"""Losses as phases: one module or folder per family, each with its `build`."""
