"""inject: complete a message and queue it."""
