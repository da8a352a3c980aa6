"""What a connection is called: in the environment of the program, and in the log (qmail.md 21.1)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

FIELD_MAX: Final = 100  # bytes of a field in a log line, before "..."
_OURS: Final = ("LOCALIP", "LOCALPORT", "LOCALHOST", "REMOTEIP", "REMOTEPORT", "REMOTEHOST", "REMOTEINFO", "INTERFACE")
# what qm-tls alone tells
_OF_TLS: Final = (
    "SSL_PROTOCOL",
    "SSL_CIPHER",
    "SSL_CIPHER_USEKEYSIZE",
    "SSL_TLS_SNI",
    "SSL_CLIENT_S_DN",
    "TLSBINDINGS",
)
_OF_IPC: Final = ("IPCLOCALPATH", "IPCREMOTEPATH", "IPCREMOTEEUID", "IPCREMOTEEGID", "IPCREMOTEPID")
_OF_TCP: Final = tuple(prefix + name for prefix in ("TCP", "TCP6") for name in _OURS)
_REMOVED: Final = frozenset(name.encode() for name in ("PROTO", "QMREADY", *_OF_TLS, *_OF_IPC, *_OF_TCP))
_MAPPED: Final = "::ffff:"  # RFC 4291 2.5.5.2: an IPv4 address on an IPv6 socket
_SEEN: Final = bytes(byte if 32 < byte < 127 and byte != ord("%") else ord("?") for byte in range(256))
_HOST_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


class Address(NamedTuple):
    ip: bytes
    port: int


class Neighbour(NamedTuple):
    """A process of this machine, as the kernel knew it when it connected."""

    pid: int
    uid: int
    gid: int
    path: bytes = b""  # of its end; hardly anybody gives it one


class Names(NamedTuple):
    """What has been found out about a connection; None is not known."""

    local_host: bytes | None = None
    remote_host: bytes | None = None
    remote_info: bytes | None = None


def plain(ip: str) -> bytes:
    """The text of a socket's address, IPv4 where it is."""
    if ip.startswith(_MAPPED) and "." in ip:
        ip = ip[len(_MAPPED) :]
    return ip.encode("ascii")


def base(env: Mapping[bytes, bytes], path: bytes) -> dict[bytes, bytes]:
    """What all connections have in common: *env* with *path*, without what we set for each."""
    return {**{name: value for name, value in env.items() if name not in _REMOVED}, b"PATH": path}


def _variables(local: Address, remote: Address, names: Names) -> Iterator[tuple[bytes, bytes]]:
    yield b"LOCALIP", local.ip
    yield b"LOCALPORT", b"%d" % local.port
    yield b"REMOTEIP", remote.ip
    yield b"REMOTEPORT", b"%d" % remote.port
    if names.local_host is not None:
        yield b"LOCALHOST", names.local_host
    if names.remote_host is not None:
        yield b"REMOTEHOST", names.remote_host
    if names.remote_info is not None:
        yield b"REMOTEINFO", names.remote_info


def environment(common: Mapping[bytes, bytes], local: Address, remote: Address, names: Names) -> dict[bytes, bytes]:
    """The environment of one connection; what is not known is not there.

    With IPv6, PROTO is TCP6 and each variable has a twin TCP6..., as the usual patch of ucspi-tcp has it.
    """
    env = dict(common)
    six = b":" in remote.ip
    env[b"PROTO"] = b"TCP6" if six else b"TCP"
    for name, value in _variables(local, remote, names):
        env[b"TCP" + name] = value
        if six:
            env[b"TCP6" + name] = value
    return env


def ipc_environment(common: Mapping[bytes, bytes], path: bytes, remote: Neighbour) -> dict[bytes, bytes]:
    """The same for a connection to the socket *path*, as UCSPI-IPC has it; the pid is ours."""
    return {
        **common,
        b"PROTO": b"IPC",
        b"IPCLOCALPATH": path,
        b"IPCREMOTEPATH": remote.path,
        b"IPCREMOTEEUID": b"%d" % remote.uid,
        b"IPCREMOTEEGID": b"%d" % remote.gid,
        b"IPCREMOTEPID": b"%d" % remote.pid,
    }


def field(text: bytes | None) -> bytes:
    """A field of a log line: neither blanks nor control bytes nor %, and not long."""
    text = text or b""
    return text[:FIELD_MAX].translate(_SEEN) + (b"..." if len(text) > FIELD_MAX else b"")


# LITERAL shapes: log analysers know them


def status_line(count: int, limit: int, name: bytes = b"tcpserver") -> bytes:
    return b"%b: status: %d/%d" % (name, count, limit)


def met_line(pid: int, remote: Address) -> bytes:
    return b"tcpserver: pid %d from %b" % (pid, field(remote.ip))


def ipc_lines(pid: int, path: bytes, remote: Neighbour) -> tuple[bytes, bytes]:
    """Who has come, and that he is served: uid, gid and pid."""
    return (
        b"ipcserver: pid %d from uid %d" % (pid, remote.uid),
        b"ipcserver: ok %d %b %d:%d:%d" % (pid, field(path), remote.uid, remote.gid, remote.pid),
    )


def verdict_line(allow: bool, pid: int, local: Address, remote: Address, names: Names) -> bytes:
    return b"tcpserver: %b %d %b:%b:%d %b:%b:%b:%d" % (
        b"ok" if allow else b"deny",
        pid,
        field(names.local_host),
        field(local.ip),
        local.port,
        field(names.remote_host),
        field(remote.ip),
        field(names.remote_info),
        remote.port,
    )


def end_line(pid: int, status: int, name: bytes = b"tcpserver") -> bytes:
    return b"%b: end %d status %d" % (name, pid, status)


def host_text(labels: Sequence[bytes]) -> bytes | None:
    """A host name from the labels that DNS gave: lower case, any other byte as a backslash and three octal digits."""
    labels = [label.lower() for label in labels if label]
    if not labels:
        return None
    return b".".join(
        b"".join(b"%c" % byte if byte in _HOST_BYTES else b"\\%03o" % byte for byte in label) for label in labels
    )


def nameservers(text: bytes) -> list[tuple[str, int]]:
    """Addresses and ports of $DNSCACHEIP: words of ``ip``, ``ip:port`` or ``[ip]:port``.  Raises ValueError."""
    found = []
    for word in text.decode("ascii").replace(",", " ").split():
        ip, colon, port = word.rpartition(":")
        if colon and (ip.endswith("]") or ":" not in ip):
            found.append((ip.strip("[]"), int(port)))
        else:
            found.append((word.strip("[]"), 53))
    return found
