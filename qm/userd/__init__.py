"""userd: who has a mailbox here, and who may log in."""
