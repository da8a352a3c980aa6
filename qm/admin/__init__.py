"""admin: the command qm, by which an administrator installs the suite and looks after it; one module a subcommand."""
