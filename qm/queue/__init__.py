"""queue: takes messages in; the command (main) and the service (service, session) do it by the same steps."""
