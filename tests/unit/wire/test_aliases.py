"""sendmail's alias files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import aliases, forwarding
from qm.wire.forwarding import BadForward

DEBIAN = b"""\
# /etc/aliases
mailer-daemon: postmaster
postmaster: root
nobody: root
hostmaster: root
usenet: root
news: root
webmaster: root
www: root
ftp: root
abuse: root
noc: root
security: root
root: joe
clamav:\troot
"""
# As sendmail's aliases(5) and its operations guide, and Postfix's aliases(5), show them
DOCUMENTED = rb"""
#  Basic system aliases -- these MUST be present.
MAILER-DAEMON: postmaster
postmaster:root

owner-unix-wizards: unix-wizards-request
unix-wizards: wnj@ucbarpa, "joe user"@x.example,
    # a comment in between
	:include:/usr/local/lib/unix-wizards.list

decode:		"|/usr/bin/uudecode"
msgs: "|/usr/bin/msgs -s"
vacation: \eric, "|/usr/bin/vacation eric"
bin: /dev/null
archive: /var/mail/archive, "/var/mail/with, comma", /home/x/Maildir/
"quoted name": Eric Allman <eric@sendmail.example> (the author), <bob>
quoter: |"/usr/bin/x \"a b\", c"
plain: |/usr/bin/y
"""


def read(text: bytes, host: bytes = b"me.example") -> dict[bytes, list[bytes]]:
    entries = aliases.parse(text, host).entries
    return {entry.key: [kind.value + argument for kind, argument in entry.commands] for entry in entries}


def test_debian() -> None:
    """The file that Debian makes: names in lower case, at any host; addresses at ours."""
    found = read(DEBIAN)
    assert len(found) == 14
    assert found[b":mailer-daemon@"] == [b"&postmaster@me.example"]
    assert found[b":clamav@"] == [b"&root@me.example"]
    assert aliases.parse(DEBIAN, b"me.example").warnings == []


def test_documented() -> None:
    """The examples of the documentation: owners, quotes, programs, files, :include:, continued lines."""
    assert read(DOCUMENTED) == {
        b":mailer-daemon@": [b"&postmaster@me.example"],
        b":postmaster@": [b"&root@me.example"],
        b":owner-unix-wizards@": [b"&unix-wizards-request@me.example"],
        b":unix-wizards@": [b"&wnj@ucbarpa", b"&joe user@x.example", b"/usr/local/lib/unix-wizards.list.bin"],
        b"?unix-wizards@": [b"&owner-unix-wizards@me.example"],
        b":decode@": [b"!/usr/bin/uudecode"],
        b":msgs@": [b"!/usr/bin/msgs -s"],
        b":vacation@": [b"&eric@me.example", b"!/usr/bin/vacation eric"],
        b":bin@": [],
        b":archive@": [b">/var/mail/archive", b">/var/mail/with, comma", b">/home/x/Maildir/"],
        b":quoted name@": [b"&eric@sendmail.example", b"&bob@me.example"],
        b":quoter@": [b'!/usr/bin/x "a b", c'],
        b":plain@": [b"!/usr/bin/y"],
    }


def test_hosts() -> None:
    """A name may have a host, or be one."""
    assert read(b"a@b.example: c\n@d.example: e@f") == {b":a@b.example": [b"&c@me.example"], b":@d.example": [b"&e@f"]}


def test_once() -> None:
    """An address that is named twice gets one copy."""
    assert read(b"a: b, c, b, B <b@me.example>") == {b":a@": [b"&b@me.example", b"&c@me.example"]}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"a: b\nno colon\n", 2),
        (b"  begins with a blank: x", 1),
        (b"a: b\n\n: c", 3),
        (b'a: "unclosed', 1),
        (b'a: b,\n  c,\n  "d\ne: f', 1),
        (b"a: <b", 1),
        (b"a: (b", 1),
        (b"a: :include:relative", 1),
        (b"a: |", 1),
        (b"a: <>", 1),
        (b"a: b\0c", 1),
        (b"@: b", 1),
    ],
)
def test_what_is_no_alias(text: bytes, line: int) -> None:
    """A line that cannot be understood is refused, with its number."""
    with pytest.raises(BadForward, match=f"^{line}: "):
        aliases.parse(text, b"me")


def test_the_same_name_twice() -> None:
    """Of two aliases with one name the first counts, and the second is warned of."""
    found = aliases.parse(b"a: b\nA: c\n", b"me")
    assert found.entries[0].commands == (forwarding.command(b"b@me"),)
    assert found.warnings == ["2: the same name as in line 1, which counts"]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (b"a: a, x@y", ["1"]),
        (b"a: b\nb: c\nc: a@ME", ["3"]),
        (b"a: b\nb: a\nc: a", ["2"]),
        (b"a: b, c\nb: d\nc: d\nd: e", []),
        (b"a: a@elsewhere.example", []),
        (b"a@x: a@x", ["1"]),
    ],
)
def test_circles(text: bytes, warned: list[str]) -> None:
    """Aliases that lead back to themselves are named; two ways to one place are none."""
    assert [warning.partition(":")[0] for warning in aliases.parse(text, b"me").warnings] == warned


def test_a_long_chain() -> None:
    """A chain of 2,000 aliases is followed without a deep stack, and each of them once."""
    text = b"".join(b"a%d: a%d\n" % (n, n + 1) for n in range(2000)) + b"a2000: a0\n"
    assert len(aliases.parse(text, b"me").warnings) == 1


def test_included() -> None:
    """An :include: file has addresses, one or several a line, and neither programs nor mailboxes."""
    found = aliases.included(b"# list\na@b, C <c@d>\ne\n:include:/more\n", b"me")
    assert found == [forwarding.command(word) for word in (b"a@b", b"c@d", b"e@me", b"/more.bin")]
    for bad in (b"|x", b"/x", b'"|x"'):
        with pytest.raises(BadForward, match=r"^2: "):
            aliases.included(b"a@b\n" + bad, b"me")


@given(st.binary(max_size=80))
def test_any_text(text: bytes) -> None:
    """Any bytes are aliases or BadForward, and what is understood fits a database."""
    for whole in (text, b"a: " + text):
        try:
            for entry in aliases.parse(whole, b"me").entries:
                assert forwarding.decode(forwarding.encode(entry.commands)) == list(entry.commands)
        except BadForward:
            pass


def test_nobody() -> None:
    """/dev/null is nobody, whatever else is named beside it."""
    assert aliases.addressees(b"x@y, /dev/null", b"me") == [forwarding.command(b"x@y")]
