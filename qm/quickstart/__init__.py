"""quickstart: a private mail system with one command, and its first message."""
