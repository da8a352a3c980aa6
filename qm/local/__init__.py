"""local: deliver one message to one recipient, as that recipient's user and .qmail file say (qmail-local)."""
