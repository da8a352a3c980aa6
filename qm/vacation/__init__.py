"""vacation: answer mail while its reader is away, and nobody whom an answer would harm (RFC 3834)."""
