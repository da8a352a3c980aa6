"""tlsd: TLS for all that serve the network; who holds the keys reads nothing, and who serves never sees a key."""
