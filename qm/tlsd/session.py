"""One job of a worker: greet, shake hands, say what was agreed, pass bytes on."""

import socket
import ssl
import time
from contextlib import suppress
from select import POLLIN
from typing import Final

from qm.tlsd.certificates import Certificates, Identity
from qm.tlsd.pump import Gone, Network, Pump, TooSlow
from qm.unix import log
from qm.wire import clienthello
from qm.wire.tlsjob import Facts, Serve, Sorry, frame, unpack_question

NAME: Final = b"qm-tlsd"


class _Refused(Exception):
    """Why there is no session."""


class _Handshake:
    """With the peer of *network*, before *deadline_s*."""

    def __init__(self, network: Network, certificates: Certificates, protocol: bytes, deadline_s: float) -> None:
        self._network = network
        self._certificates = certificates
        self._protocol = protocol
        self._deadline_s = deadline_s
        self._name = ""  # that the client calls us by
        chosen = certificates.choose("")
        if chosen is None:
            raise _Refused("no certificate")
        self._identity: Identity = chosen
        context = chosen.contexts[protocol]
        context.sni_callback = self._named
        self.tls = context.wrap_bio(network.incoming, network.outgoing, server_side=True)

    def _named(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """The client calls us by *name*: show the certificate for that."""
        self._name = name or ""
        chosen = self._certificates.choose(self._name)
        if chosen is not None and chosen is not self._identity:
            self._identity = chosen
            tls.context = chosen.contexts[self._protocol]

    def run(self) -> Facts:
        """Raises _Refused, Gone."""
        self._hear_hello()
        while True:
            try:
                self.tls.do_handshake()
                self._network.flush(b"", self._deadline_s)
                return self._facts()
            except ssl.SSLWantReadError:
                self._network.flush(b"", self._deadline_s)
                self._network.incoming.write(self._more())
            except ssl.SSLError as error:
                with suppress(Gone):
                    self._network.flush(b"", self._deadline_s)  # an alert
                    self._network.end()
                raise _Refused(_why(error)) from error

    def _hear_hello(self) -> None:
        data = b""
        while (hello := clienthello.read(data)) is None:
            data += self._more()
        if hello.protocols and self._protocol not in hello.protocols:
            with suppress(Gone):
                self._network.flush(clienthello.NO_PROTOCOL, self._deadline_s)
                self._network.end()
            raise _Refused("the client speaks another protocol (ALPN)")
        self._network.incoming.write(data)

    def _more(self) -> bytes:
        while True:
            self._network.wait(POLLIN, self._deadline_s)
            with suppress(BlockingIOError):
                data = self._network.receive()
                if not data:
                    raise Gone
                return data

    def _facts(self) -> Facts:
        cipher = self.tls.cipher()
        name, bits = (cipher[0], cipher[2]) if cipher is not None else ("", 0)
        version = self.tls.version() or ""
        bindings = [(b"tls-server-end-point", self._identity.end_point)]
        if version == "TLSv1.2":  # RFC 9266 3: it is not defined for later ones
            bindings.append((b"tls-unique", self.tls.get_channel_binding("tls-unique") or b""))
        return Facts(
            version.encode("ascii"),
            name.encode("ascii"),
            bits,
            log.word(self._name.encode("utf-8", "replace"))[:255],
            _client(self.tls),
            tuple((kind, value) for kind, value in bindings if value),
        )


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's own words, none of the peer's."""
    return (error.reason or type(error).__name__).lower().replace("_", " ")


def _client(tls: ssl.SSLObject) -> bytes:
    """Whom a verified client certificate names: its first e-mail address, else its common name."""
    certificate = tls.getpeercert()
    if not certificate:
        return b""
    alternatives = certificate.get("subjectAltName", ())
    emails = [str(pair[1]) for pair in alternatives if pair[0] == "email"]
    subject = [pair for names in certificate.get("subject", ()) for pair in names]
    names = [str(pair[1]) for pair in subject if isinstance(pair, tuple) and pair[0] == "commonName"]
    return next((name.encode("utf-8", "replace") for name in emails + names if "\0" not in name), b"")


def work(certificates: Certificates, record: bytes, descriptors: list[int]) -> bytes:
    """Serve the peer and the program that are the two descriptors; raises Malformed for what is no job."""
    job = unpack_question(record)
    assert isinstance(job, Serve)
    network_fd, program_fd = descriptors
    descriptors.clear()
    # kinds are not looked at here; named, they are not asked of the kernel
    network, stream = (socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd) for fd in (network_fd, program_fd))
    with network as connection, stream as program:
        with suppress(OSError):  # a socket of another kind has no such thing
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _serve(certificates, job, connection, program)
    return b""


def _serve(certificates: Certificates, job: Serve, connection: socket.socket, program: socket.socket) -> None:
    deadline_s = time.monotonic() + job.timeout_ms / 1000
    network = Network(connection)
    peer = _peer(connection)  # while it is there
    try:
        handshake = _Handshake(network, certificates, job.protocol, deadline_s)
        network.flush(job.say, deadline_s)
        facts = handshake.run()
    except (Gone, _Refused) as error:
        why = "the client is too slow" if isinstance(error, TooSlow) else str(error) or "the client has gone"
        log.info(NAME, f"{peer}: no TLS: {why}")
        _tell(program, Sorry(said=True, why=why.encode()))
        return
    if _tell(program, facts):
        Pump(network, handshake.tls, program).run()


def _tell(program: socket.socket, answer: Facts | Sorry) -> bool:
    """Whether the program is still there."""
    try:
        program.sendall(frame(answer))
    except OSError:
        return False
    return True


def _peer(connection: socket.socket) -> str:
    try:
        address = connection.getpeername()
    except OSError:
        return "a client that has gone"
    return address[0] if isinstance(address, tuple) else "a local client"
