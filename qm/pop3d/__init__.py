"""pop3d: a Maildir served by POP3 to a user who has logged in."""
