"""STARTTLS for real: qm-tlsd takes the network, and the session goes on by a plain socket in its place."""

import os
from typing import Final

from qm.smtpd.tls import Secured
from qm.unix.channel import Channel, Gone
from qm.unix.tlsclient import Failed, TlsClient

_READY: Final = b"220 2.0.0 ready to start TLS\r\n"  # RFC 3207 4; qm-tlsd says it, and nothing after it in clear


class Tlsd:
    """A tls.Starter for descriptors 0 and 1."""

    def __init__(self) -> None:
        self._client = TlsClient()

    def ready(self) -> bool:
        return self._client.ready()

    def start(self, timeout_s: float) -> tuple[Channel, Secured]:
        """Raises Busy, when nothing was said, and Gone."""
        try:
            plain, facts = self._client.serve(0, _READY, b"smtp", timeout_s)
        except Failed as error:
            raise Gone(str(error)) from error
        with plain:
            os.dup2(plain.fileno(), 0)
            os.dup2(plain.fileno(), 1)
        secured = Secured(facts.version, facts.cipher, facts.sni, facts.client, dict(facts.bindings))
        return Channel(0, 1, timeout_s), secured
