"""What we ask of the kernel: processes, descriptors, identities, time."""
