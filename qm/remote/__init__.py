"""remote: hand messages to other hosts by SMTP."""
