"""qreceipt: tell the sender that the message has arrived, if he asked for it; for a line of a .qmail file (qreceipt).

Usage:   qreceipt address
Reads:   fd 0 (the message's header)
Env:     SENDER (qmail.md 13.5); QMHOME
Asks:    queue
As:      the recipient
Exits:   0 told, or nothing to tell; 100 usage, or the queue refuses; 111 not now
See:     qreceipt(1), dot-qmail(5), qmail.md section 17

A sender asks by the field Notice-Requested-Upon-Delivery-To.
"""

import os
import time
from typing import Final

from qm.errors import OK
from qm.unix import dotqmailenv, postbox, standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import date
from qm.wire.address import quote, split
from qm.wire.envelope import Envelope, Recipient
from qm.wire.rfc822 import Field, fields, one_line
from qm.wire.rfc822address import addresses
from qm.wire.rfc822token import Unparsable

_ASKING: Final = b"notice-requested-upon-delivery-to"
_NOBODY: Final = (b"", b"#@[]")  # who must not be answered


def _asks(header: list[Field], address: bytes) -> bool:
    for field in header:
        if field.name == _ASKING:
            try:
                if address in addresses(field.body):
                    return True
            except Unparsable:
                pass  # whoever wrote that asks for nothing
    return False


def _notice(header: list[Field], address: bytes, sender: bytes) -> bytes:
    now_s = int(time.time())
    quoted, host = one_line(quote(address), b"_"), one_line(split(address)[1], b"_")
    lines = [
        b"Date: " + date.rfc5322(now_s),
        b"Message-ID: <%b.%d.qreceipt@%b>" % (date.compact(now_s), os.getpid(), host),
        b"From: DELIVERY NOTICE SYSTEM <%b>" % quoted,
        b"To: <%b>" % one_line(quote(sender), b"_"),
        b"Subject: success notice",
        b"Auto-Submitted: auto-replied",  # RFC 3834 5
        b"",
        b"This is the program qreceipt.  Your message was delivered to",
        b"",
        b"    " + quoted,
        b"",
        b"and you had asked to be told.",
    ]
    for field in header:
        if field.name == b"message-id":
            lines += [b"", b"Your " + field.text.rstrip(b"\n")]
            break
    return b"\n".join(lines) + b"\n"


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 2:
        raise Usage("usage: qreceipt address")
    sender = dotqmailenv.variable(env, b"SENDER")
    header = fields(standard.chunks())
    if sender not in _NOBODY and _asks(header, argv[1]):
        postbox.post(env, [_notice(header, argv[1], sender)], Envelope(b"", (Recipient(sender),)))
    return OK
