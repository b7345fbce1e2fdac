"""Weights for others."""
