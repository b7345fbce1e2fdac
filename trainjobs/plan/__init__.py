"""What is decided before training: the ZeRO stage, how the batch is cut, DeepSpeed's configuration. Pure; no torch."""
