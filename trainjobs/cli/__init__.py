"""The command line `gtj`. Stands on top of everything; imports heavy modules inside the command that needs them."""
