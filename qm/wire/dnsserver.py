"""A line of control/dnsservers."""


def parse(line: bytes) -> tuple[str, int]:
    """``1.2.3.4``, ``1.2.3.4:53``, ``::1`` or ``[::1]:53`` as address and port; raises ValueError."""
    text = line.decode("ascii")
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, ""
    number = int(port or "53")
    if not 0 < number < 65536:
        raise ValueError("no such port")
    return address, number
