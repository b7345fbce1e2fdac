"""What is measured and shown of a model while it trains."""
