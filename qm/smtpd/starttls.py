"""STARTTLS for real: qm-tlsd takes the network, and the session goes on by a plain socket in its place."""

from typing import Final

from qm.unix.channel import Channel, Gone
from qm.unix.tlsclient import Failed, TlsClient
from qm.wire.secured import Secured

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
            facts = self._client.encrypt(_READY, b"smtp", timeout_s)
        except Failed as error:
            raise Gone(str(error)) from error
        secured = Secured(facts.version, facts.cipher, facts.sni, facts.client, dict(facts.bindings))
        return Channel(0, 1, timeout_s), secured
