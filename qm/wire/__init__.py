"""Formats and protocols: bytes in, values out.  Nothing here touches the kernel."""
