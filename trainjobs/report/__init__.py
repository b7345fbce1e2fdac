"""What a run leaves to look at: one HTML file, TensorBoard events, and the reading side of its folder."""
