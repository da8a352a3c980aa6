"""popup: POP3 before login; who parses has no privileges, and who has them parses nothing."""
