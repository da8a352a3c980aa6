"""rblsmtpd: refuse mail from peers that a list names, before an SMTP server sees them."""
