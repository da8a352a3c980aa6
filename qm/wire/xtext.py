"""xtext, as ENVID and ORCPT are written (RFC 3461 4); qm.wire.dsn reads it."""


def encode(text: bytes) -> bytes:
    """What is not plain, or + or =, becomes + and two hexadecimal digits."""
    return b"".join(b"%c" % byte if 32 < byte < 127 and byte not in b"+=" else b"+%02X" % byte for byte in text)
