"""What we keep on disk, and in which order it is written."""
