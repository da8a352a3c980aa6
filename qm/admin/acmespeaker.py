"""The child that speaks ACME (RFC 8555) with a certificate authority, as qmailr, which talks to other hosts anyway.

It gets the account's key and a request for a certificate, never the certificate's own key.  What the server says goes
through certbot's library, and comes out as a challenge to answer, a chain, or a reason.
"""

import socket
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import acme.errors
import requests
from acme import challenges, messages
from acme.client import ClientNetwork, ClientV2
from josepy.jwa import ES256
from josepy.jwk import JWK

from qm.errors import Permanent, QmError, Temporary
from qm.unix import fds, log
from qm.wire.record import pack, unpack

TOKEN, CHAIN, FAILED = b"token", b"chain", b"failed"  # what it says
ANSWER_S: Final = 20  # for one answer of the server's
NONCES_MAX: Final = 6  # of ours in a row that it finds no good
WORDS_MAX: Final = 500  # bytes of its reasons
_FOR_GOOD: Final = frozenset(
    ("rejectedIdentifier", "unsupportedIdentifier", "userActionRequired", "externalAccountRequired", "invalidContact",
     "unsupportedContact", "badCSR", "badPublicKey", "badSignatureAlgorithm", "accountDoesNotExist")
)  # fmt: skip


class Request(NamedTuple):
    """What it is asked for; a record of its own."""

    server: bytes  # URL of the directory
    email: bytes
    agreed: bytes  # 1: the administrator agrees to the server's terms
    roots: bytes  # what to trust, a file or directory
    deadline_s: bytes  # how long it may take
    account: bytes  # PEM of the account's key
    csr: bytes  # PEM


class _Network(ClientNetwork):
    """The library's, which would take a second bad nonce for the end."""

    def post(self, *args: object, **kwargs: object) -> requests.Response:
        for _ in range(NONCES_MAX - 1):
            try:
                return self._post_once(*args, **kwargs)  # type: ignore[arg-type]
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)  # type: ignore[arg-type]


def serve(channel: socket.socket) -> None:
    record, descriptors = fds.recv_record(channel)
    fds.close_all(descriptors)
    if not record:
        return
    try:
        answer = pack(CHAIN, _Conversation(Request(*unpack(record, len(Request._fields))), channel).certificate())
    except QmError as error:
        answer = pack(FAILED, b"%d" % error.exit_code, _words(str(error)))
    except Exception as error:
        answer = pack(FAILED, b"%d" % _failure(error).exit_code, _words(str(_failure(error))))
    fds.send_record(channel, answer)


class _Conversation:
    def __init__(self, request: Request, channel: socket.socket) -> None:
        self._request = request
        self._channel = channel
        self._key = JWK.load(request.account)
        self._deadline = datetime.now() + timedelta(seconds=int(request.deadline_s))
        roots = request.roots.decode()
        self._network = _Network(self._key, None, ES256, roots or True, "qm", ANSWER_S)  # type: ignore[arg-type]

    def certificate(self) -> bytes:
        """The chain, in PEM; raises QmError, and what the libraries raise."""
        directory = ClientV2.get_directory(self._request.server.decode(), self._network)
        client = ClientV2(directory, self._network)
        self._enter(client)
        order = client.new_order(self._request.csr)
        for authorization in order.authorizations:
            if authorization.body.status != messages.STATUS_VALID:
                self._answer(client, authorization)
        done = client.poll_and_finalize(order, self._deadline)
        return str(done.fullchain_pem).encode()

    def _enter(self, client: ClientV2) -> None:
        """Have an account: the key's, or a new one."""
        terms = client.directory.meta.terms_of_service
        if terms and self._request.agreed != b"1":
            raise Permanent("the server has terms that you must agree to", detail=f"{terms}; then use --agree")
        if client.external_account_required():
            raise Permanent("the server wants an account of another kind (external account binding), which qm lacks")
        email = self._request.email.decode() or None
        try:
            client.new_account(messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True))
        except acme.errors.ConflictError as error:  # the key has one
            body = messages.Registration()
            self._network.account = messages.RegistrationResource(body=body, uri=error.location)

    def _answer(self, client: ClientV2, authorization: messages.AuthorizationResource) -> None:
        """Have the answer to its challenge shown, and say so."""
        offered = [body for body in authorization.body.challenges if isinstance(body.chall, challenges.HTTP01)]
        if not offered:
            raise Permanent("the server offers no http-01 challenge", detail=authorization.body.identifier.value)
        response, answer = offered[0].response_and_validation(self._key)
        token = offered[0].chall.encode("token")
        fds.send_record(self._channel, pack(TOKEN, token.encode(), answer.encode()))
        record, descriptors = fds.recv_record(self._channel)
        fds.close_all(descriptors)
        if not record:
            raise Temporary("the order is off")
        client.answer_challenge(offered[0], response)


def _failure(error: Exception) -> QmError:
    """What an exception of the libraries' means to an administrator."""
    if isinstance(error, acme.errors.ValidationError):
        reasons = [_refused(failed) for failed in error.failed_authzrs]
        return Temporary("the server cannot reach us by that name", detail="; ".join(reasons))
    if isinstance(error, acme.errors.IssuanceError):
        return _failure(error.error)
    if isinstance(error, messages.Error):
        kind = Permanent if error.code in _FOR_GOOD else Temporary
        return kind("the server refuses", detail=f"{error.code}: {error.detail}")
    if isinstance(error, acme.errors.TimeoutError | requests.Timeout):
        return Temporary("the server takes too long")
    if isinstance(error, requests.exceptions.SSLError):
        return Temporary("the server's own certificate is not trusted", detail="see control/tlsroots")
    if isinstance(error, requests.ConnectionError):
        return Temporary("the server cannot be reached")
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return Temporary("the roots to trust cannot be read", detail="control/tlsroots, if there is one; by qmailr")
    return Temporary("the server's answer makes no sense", detail=type(error).__name__)


def _refused(authorization: messages.AuthorizationResource) -> str:
    name = authorization.body.identifier.value
    reasons = [body.error.detail for body in authorization.body.challenges if body.error is not None]
    return f"{name}: {reasons[0] if reasons else 'no reason given'}"


def _words(text: str) -> bytes:
    """One printable line."""
    return log.clean(text.encode("utf-8", "replace"))[:WORDS_MAX]
