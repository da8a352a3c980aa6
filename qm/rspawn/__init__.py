"""rspawn: give each delivery to another host to a worker that talks SMTP."""
