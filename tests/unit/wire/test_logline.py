"""Log lines, read: each shape that our programs write, any bytes, and the way to JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.unix import log
from qm.wire.logline import Entry, in_json, in_text, parse, read

NS = 1_700_000_000_123_456_789
S = "qm-send"
SHAPES: list[tuple[bytes, Entry]] = [
    (b"new msg 1ab", Entry(S, None, "info", "new", {"msg": "1ab"})),
    (
        b"info msg 1ab: bytes 12 from <a@b> qp 34 uid 56",
        Entry(S, None, "info", "info", {"msg": "1ab", "bytes": 12, "from": "a@b", "qp": 34, "uid": 56}),
    ),
    (
        b"info msg 1ab: bytes 12 from <a>_qp@b> qp 34 uid 56",
        Entry(S, None, "info", "info", {"msg": "1ab", "bytes": 12, "from": "a>_qp@b", "qp": 34, "uid": 56}),
    ),
    (
        b"starting delivery 7: msg 1ab to remote c@d",
        Entry(S, None, "info", "start", {"number": 7, "msg": "1ab", "channel": "remote", "to": "c@d"}),
    ),
    (
        b"delivery 7: deferral: Connection_refused._(#4.4.1)/",
        Entry(
            S, None, "info", "delivery", {"number": 7, "result": "deferral", "text": "Connection_refused._(#4.4.1)/"}
        ),
    ),
    (b"delivery 7: report mangled, will defer", Entry(S, None, "info", "mangled", {"number": 7})),
    (b"bounce msg 1ab qp 1abb", Entry(S, None, "info", "bounce", {"msg": "1ab", "report": "1abb"})),
    (b"triple bounce: discarding bounce/1ab", Entry(S, None, "info", "triple", {"msg": "1ab"})),
    (b"end msg 1ab", Entry(S, None, "info", "end", {"msg": "1ab"})),
    (
        b"status: local 1/10 remote 2/20 exitasap",
        Entry(S, None, "info", "status", {"local": 1, "locallimit": 10, "remote": 2, "remotelimit": 20}),
    ),
    (b"status: exiting", Entry(S, None, "info", "exiting", {})),
    (b"alert: disk full", Entry(S, None, "alert", "text", {"text": "disk full"})),
    (b"qm-local: warning: no", Entry("qm-local", None, "warning", "text", {"text": "no"})),
    (
        b"qm-smtpd: 12 connect ip=1.2.3.4 host=a relay=yes",
        Entry("qm-smtpd", 12, "info", "connect", {"ip": "1.2.3.4", "host": "a", "relay": True}),
    ),
    (
        b"qm-smtpd: 12 rcpt to=123 code=550 why=x=y",
        Entry("qm-smtpd", 12, "info", "rcpt", {"to": "123", "code": 550, "why": "x=y"}),
    ),
    (
        b"qm-smtpd: 12 end how=quit in=1 out=2 seconds=0.25",
        Entry("qm-smtpd", 12, "info", "end", {"how": "quit", "in": 1, "out": 2, "seconds": 0.25}),
    ),
    (b"ipcserver: pid 12 from uid 102", Entry("ipcserver", 12, "info", "pid", {"uid": 102})),
    (
        b"ipcserver: ok 12 /run/qm/lmtp 102:104:881",
        Entry(
            "ipcserver",
            12,
            "info",
            "verdict",
            {"verdict": "ok", "here": "/run/qm/lmtp", "uid": 102, "gid": 104, "peerpid": 881},
        ),
    ),
    (b"tcpserver: status: 1/40", Entry("tcpserver", None, "info", "status", {"count": 1, "limit": 40})),
    (
        b"tcpserver: deny 12 0:127.0.0.1:25 h:::1:i:4711",
        Entry(
            "tcpserver",
            12,
            "info",
            "verdict",
            {"verdict": "deny", "here": "0:127.0.0.1:25", "host": "h", "ip": "::1", "info": "i", "port": 4711},
        ),
    ),
    (
        b"checkpassword: login ann from ::1: ok, uid 7",
        Entry("checkpassword", None, "info", "login", {"user": "ann", "ip": "::1", "uid": 7}),
    ),
    (
        b"checkpassword: warning: login ann from 1.2.3.4: login refused",
        Entry("checkpassword", None, "warning", "refused", {"user": "ann", "ip": "1.2.3.4", "why": "login refused"}),
    ),
    (b"here is one", Entry("", None, "info", "text", {"text": "here is one"})),
]


@pytest.mark.parametrize(("line", "entry"), SHAPES)
def test_each_shape_is_known(line: bytes, entry: Entry) -> None:
    """A line says who, what, and with which values of which type."""
    assert parse(line) == entry


@pytest.mark.parametrize(("line", "entry"), SHAPES)
def test_both_formats_tell_the_same(line: bytes, entry: Entry) -> None:
    """What qm-log has written in either format is read as the same time and content."""
    assert read(in_text(NS, line) + b"\n") == read(in_json(NS, line) + b"\n") == (NS, entry)


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_any_bytes_are_a_line_and_json(text: bytes, value: bytes) -> None:
    """Whatever is in a line, the object is one line of ASCII that says it; a stranger's value stays one value."""
    written = in_json(NS, text)
    assert written.isascii() and b"\n" not in written
    assert json.loads(written)["time"] == "2023-11-14T22:13:20.123456789Z"
    entry = parse(b"qm-smtpd: 1 helo name=" + log.word(value))
    assert entry.fields == {"name": log.word(value).decode("ascii")}


@given(st.binary(max_size=300) | st.sampled_from([b"{}", b"[", b'{"time":1}', b'{"time":"x","fields":[]}']))
def test_what_is_no_line_is_none(text: bytes) -> None:
    """Any bytes in a log file are a line of ours or nothing."""
    found = read(text)
    assert found is None or isinstance(found[1], Entry)
