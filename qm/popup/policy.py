"""What popup's privileged half decides: which report of its speaker counts, and how a login that failed is answered."""

from base64 import b64encode
from typing import Final, NamedTuple

from qm.popup.talk import Talk
from qm.wire import saslmechanism
from qm.wire.pop3login import APOP, PASS, Failed, Login, Report, Stls, checkpassword_record
from qm.wire.record import Malformed
from qm.wire.userquery import Method

DELAY_UNKNOWN: Final = 255  # seconds: who refused the login did not say how long the client must wait
DELAY_MAX_S: Final = 60
BAD_LOGIN: Final = b"-ERR [AUTH] login refused"  # RFC 3206 4
LATER: Final = b"-ERR [SYS/TEMP] cannot check the password now, try again later"  # RFC 3206 3
NO_TLS: Final = b"-ERR [SYS/TEMP] no TLS now, try again later"

_SASL: Final = {  # one of these must have been offered
    Method.CRAM_MD5.value: (b"CRAM-MD5",),
    Method.SCRAM_SHA_256.value: (b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"),
    Method.EXTERNAL.value: (b"EXTERNAL",),
    Method.OAUTHBEARER.value: (b"OAUTHBEARER",),
}
_FRESH: Final = (Method.CRAM_MD5.value, Method.SCRAM_SHA_256.value)  # answers to a challenge with our nonce in it


class Answer(NamedTuple):
    """What a client hears whose login has failed."""

    line: bytes
    after: bytes
    delay_s: int


def offered(report: Report, talk: Talk) -> Report:
    """*report*, if what it wants was offered in *talk*; raises Malformed.

    A speaker that was taken over can repeat what it has heard: a proof must be one of this very conversation.
    """
    if isinstance(report, Stls) and not talk.offer.stls:
        raise Malformed("STLS that was not offered")
    if not isinstance(report, Login):
        return report
    method, offer = report.method, talk.offer
    if method in (PASS, APOP):
        fine = not offer.forced and (method == PASS or (offer.apop and report.challenge == talk.banner))
    else:
        fine = bool(set(_SASL[method]) & set(offer.mechanisms))
        fine = fine and (method not in _FRESH or talk.peer.nonce in report.challenge)
    if not fine or not checkpassword_record(report, talk.banner):
        raise Malformed("a login that was not offered")
    return report


def answer(failed: Failed, delay_s: int, method: bytes) -> Answer:
    """What the client of an attempt by *method* hears; *delay_s* is control/authfaildelay's."""
    wait_s = min(delay_s if failed.delay_s == DELAY_UNKNOWN else failed.delay_s, DELAY_MAX_S)
    if failed.later:
        return Answer(LATER, b"", wait_s)
    if method == Method.OAUTHBEARER.value:  # RFC 7628 3.2.3; the client's answer says nothing
        return Answer(b"+ " + b64encode(saslmechanism.INVALID_TOKEN), BAD_LOGIN, wait_s)
    return Answer(BAD_LOGIN, b"", wait_s)
