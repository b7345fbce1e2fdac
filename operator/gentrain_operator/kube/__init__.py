"""The controller runtime: what client-go and controller-runtime are to a Go operator, in threads and plain dicts."""
