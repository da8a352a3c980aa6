"""Transports and networks of a Postfix, as lines of ours."""

import pytest

from qm.admin.postfixroutes import Transport, network_rules, socket_root

SPOOL = "/var/spool/postfix"
LONG = "/" + "x" * 200
LINES = {
    "a.example smtp:[192.0.2.1]": "smtproutes: a.example:192.0.2.1",
    "a.example relay:[ipv6:2001:db8::1]:26": "smtproutes: a.example:[2001:db8::1]:26",
    ".a.example :": "smtproutes: .a.example:",
    "* lmtp:unix:/run/lmtp": "lmtproutes: :/run/lmtp",
    "a.example lmtp:unix:private/dovecot-lmtp": f"lmtproutes: a.example:{SPOOL}/private/dovecot-lmtp",
    "a.example lmtp:inet:box.example": "lmtproutes: a.example:box.example:24",
    "a.example lmtp:inet:[192.0.2.1]:2003": "lmtproutes: a.example:192.0.2.1:2003",
    "a.example lmtp:[2001:db8::1]": "lmtproutes: a.example:[2001:db8::1]:24",
    "a.example lmtp:box.example:2003": "lmtproutes: a.example:box.example:2003",
}
REFUSED = (
    "joe@a.example lmtp:unix:/run/lmtp",
    "a.example lmtp:",
    "a.example lmtp:unix:",
    "a.example lmtp:inet:box.example:25",
    "a.example lmtp:inet:box.example:lmtp",
    "a.example lmtp:box.example, other.example",
    "a.example lmtp:unix:/with blank",
    f"a.example lmtp:unix:{LONG}",
    "a.example smtp:box.example:99999",
    "a.example error:no such domain",
    "a.example dovecot:",
)


def finding(line: str, chroot: str = "n") -> str:
    roots = socket_root(f"# a comment\nlmtp unix - - {chroot} - -\n  lmtp\n", SPOOL)
    return str(Transport("/home", roots).finding("here", *line.split(" ", 1)))


@pytest.mark.parametrize("line", LINES)
def test_a_line(line: str) -> None:
    """Each form of a next hop that has a counterpart gives a line that qm takes."""
    said = finding(line)
    assert "NOT CARRIED" not in said
    assert said.partition(" (")[0] == f"here: control/{LINES[line]}"


@pytest.mark.parametrize("line", REFUSED)
def test_no_line(line: str) -> None:
    """What has none is named."""
    said = finding(line)
    assert said.startswith("here: NOT CARRIED OVER: ")
    assert line.split()[0] in said


def test_a_chroot() -> None:
    """A path that begins with / is one in the queue directory where lmtp(8) is told to have that as its root."""
    assert f"a.example:{SPOOL}/run/lmtp" in finding("a.example lmtp:unix:/run/lmtp", "y")
    assert f"a.example:{SPOOL}/run/lmtp" in finding("a.example lmtp:unix:run/lmtp", "y")
    assert socket_root("no line at all", SPOOL) == socket_root(" begins with a blank", SPOOL) == (SPOOL, "/")


@pytest.mark.parametrize(
    ("word", "rules"),
    [
        ("127.0.0.0/8", ["127."]), ("10.1.2.3", ["10.1.2.3"]), ("10.1.2.3/32", ["10.1.2.3"]),
        ("10.1.0.0/16", ["10.1."]), ("172.16.0.0/12", ["172.16-31."]), ("192.0.2.64/26", ["192.0.2.64-127"]),
        ("[::1]/128", ["::1"]),
    ],
)  # fmt: skip
def test_networks(word: str, rules: list[str]) -> None:
    """A network is a beginning of addresses, or a range of them."""
    assert list(network_rules(word)) == rules


@pytest.mark.parametrize("word", ["[2001:db8::]/32", "hash:/etc/networks", "!10.0.0.1", "0.0.0.0/0", "10.0.0.1/8"])
def test_no_networks(word: str) -> None:
    """What cannot be said with tcprules is refused, and so is everybody."""
    with pytest.raises(ValueError, match=r"."):
        list(network_rules(word))
