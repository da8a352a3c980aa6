"""A server's address and port, as lines of control/dnsservers and control/qmqpservers name it."""


def parse(line: bytes, default_port: int) -> tuple[str, int]:
    """``1.2.3.4``, ``1.2.3.4:53``, ``::1`` or ``[::1]:53`` as address and port; raises ValueError."""
    text = line.decode("ascii")
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, ""
    number = int(port) if port else default_port
    if not 0 < number < 65536:
        raise ValueError("no such port")
    return address, number
