"""tcpserver: accept connections, find out who they are and whether they may, and run a program for each (UCSPI)."""
