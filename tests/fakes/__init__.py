"""Small real programs that play the others: each listens where the kernel says, and tells the port on its output."""
