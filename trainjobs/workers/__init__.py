"""How a group of workers is started, watched and replaced."""
