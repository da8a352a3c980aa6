"""send: decide what is delivered when, and remember what happened (qmail-send)."""
