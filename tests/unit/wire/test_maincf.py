"""Postfix's main.cf."""

import pytest

from qm.wire import maincf
from qm.wire.maincf import BadSetting, Configuration

TEXT = """\
# comment
myhostname = mx.a.example
mydestination = $myhostname, localhost.$mydomain,
   # in between
   ${myorigin}

myorigin=$(mydomain)
myorigin = $mydomain
empty =
chosen = ${empty?no}${empty:yes}${myhostname?{ set }}$$x
a = $b
b = $a
"""


def configuration(text: str = TEXT) -> Configuration:
    return Configuration(maincf.parse(text), "host.b.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mydestination", "mx.a.example, localhost.a.example, a.example"),
        ("myorigin", "a.example"),
        ("empty", ""),
        ("chosen", "yesset$x"),
        ("relay_domains", ""),
        ("queue_directory", "/var/spool/postfix"),
        ("no_such", ""),
    ],
)
def test_values(name: str, value: str) -> None:
    """References, defaults, continued lines; the last setting counts."""
    assert configuration().value(name) == value


def test_where() -> None:
    """A parameter knows its line."""
    known = configuration()
    assert (known.line("mydestination"), known.line("myorigin"), known.line("relayhost")) == (3, 8, 0)
    assert known.words("mydestination") == ["mx.a.example", "localhost.a.example", "a.example"]


def test_without_a_name() -> None:
    """myhostname is the machine's where nothing is said, and mydomain what follows its first dot."""
    known = configuration("")
    assert known.value("mydestination") == "host.b.example, localhost.b.example, localhost"
    assert Configuration({}, "host").value("mydomain") == "localdomain"


def test_a_circle() -> None:
    """Parameters that refer to one another are an error, not a deep stack."""
    with pytest.raises(ValueError, match="circle"):
        configuration().value("a")


@pytest.mark.parametrize(("text", "line"), [("a = b\nno setting\n", 2), ("  a = b", 1), ("a = b\n= c", 2)])
def test_what_is_none(text: str, line: int) -> None:
    """A line that is no setting is named."""
    with pytest.raises(BadSetting, match=rf"^{line}: "):
        maincf.parse(text)


def test_rows() -> None:
    """A table's source: key, blank, value; keys in lower case; continued lines."""
    text = "# x\nA@b.example  c, d\nkey\tvalue with blanks\n  more\n\nx\t\ty\n"
    assert list(maincf.table_rows(text)) == [
        (2, "a@b.example", "c, d"), (3, "key", "value with blanks more"), (6, "x", "y"),
    ]  # fmt: skip
    with pytest.raises(BadSetting, match=r"^1: "):
        list(maincf.table_rows("alone\n"))
