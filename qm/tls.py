"""tls: have qm-tlsd encrypt the connection on descriptor 0, then run a program on the plain one (UCSPI).

Usage:   qm-tls protocol program [arg ...]
Reads:   control/timeouttls; of the network nothing
Env:     sets SSL_PROTOCOL, SSL_CIPHER, SSL_CIPHER_USEKEYSIZE, SSL_TLS_SNI, SSL_CLIENT_S_DN and TLSBINDINGS
Writes:  fd 2 (log)
Asks:    tlsd, which has the keys
As:      whoever runs it; qm-tlsd must know the user: root, the owner, qmaild or qmailp
Exits:   what the program exits with; 100 usage; 111 no TLS, or no handshake
See:     qm-tls(1), RFC 8314 3

The protocol is smtp or pop3.
"""

from typing import Final

from qm import errors
from qm.disk.control import Controls
from qm.unix import chain, log
from qm.unix.program import Argv, Env, Usage, program
from qm.unix.tlsclient import Busy, Failed, TlsClient
from qm.wire.secured import environment

NAME: Final = b"qm-tls"
PROTOCOLS: Final = (b"smtp", b"pop3")


class _Tls:
    """What serves one connection after another."""

    def __init__(self, argv: Argv, env: Env) -> None:
        self._protocol = argv[1]
        self._run = chain.prepare(argv[2:], env)
        self._controls = Controls(("timeouttls",))
        self._client = TlsClient()

    def __call__(self, env: Env) -> int:
        self._controls.refresh(lambda text: log.alert(NAME, text))
        try:
            facts = self._client.encrypt(b"", self._protocol, max(1, self._controls.number("timeouttls")))
        except Busy as error:
            log.warning(NAME, str(error))
            return errors.TEMPORARY
        except Failed:  # qm-tlsd has said why
            return errors.TEMPORARY
        return self._run({**env, **environment(facts)})


def warm(argv: Argv, env: Env) -> chain.Runner:
    if len(argv) < 3 or argv[1] not in PROTOCOLS:
        raise Usage("usage: qm-tls smtp|pop3 program [arg ...]")
    return _Tls(argv, env)


@program()
def main(argv: Argv, env: Env) -> int:
    return warm(argv, env)(env)
