"""What is measured since the last sync, and what rank 0 makes of it."""
