"""fastforward: forward a message as a database of aliases says (fastforward)."""
