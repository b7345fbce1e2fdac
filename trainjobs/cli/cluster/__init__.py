"""The verbs that act on a cluster. Whatever asks the API server goes through `server.Cluster`; deciding and showing is pure."""
