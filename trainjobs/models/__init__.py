"""The networks we own, and adapters to transformers' models."""
