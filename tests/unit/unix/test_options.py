"""Command lines in qmail's dialect (qmail.md 2.9)."""

import pytest

from qm.unix.options import parse
from qm.unix.program import Usage


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ([], [], []),
        ([b"-ab", b"w"], [(b"a", b""), (b"b", b"")], [b"w"]),
        ([b"-vx", b"w"], [(b"v", b"x")], [b"w"]),
        ([b"-v", b"x", b"w"], [(b"v", b"x")], [b"w"]),
        ([b"-av", b"-x", b"w"], [(b"a", b""), (b"v", b"-x")], [b"w"]),
        ([b"-v", b""], [(b"v", b"")], []),
        ([b"-o", b"w"], [(b"o", b"")], [b"w"]),
        ([b"-oxy", b"w"], [(b"o", b"xy")], [b"w"]),
        ([b"-aoa", b"w"], [(b"a", b""), (b"o", b"a")], [b"w"]),
        ([b"w", b"-a"], [], [b"w", b"-a"]),
        ([b"-a", b"--", b"-b"], [(b"a", b"")], [b"-b"]),
        ([b"-", b"-a"], [], [b"-", b"-a"]),
        ([b"", b"-a"], [], [b"", b"-a"]),
    ],
)
def test_parse(args: list[bytes], options: list[tuple[bytes, bytes]], words: list[bytes]) -> None:
    """Flags cluster; an argument is attached or the next word; the first other word, -- or - ends the options."""
    assert parse(args, "usage", flags=b"ab", valued=b"v", attached=b"o") == (options, words)


@pytest.mark.parametrize("args", [[b"-x"], [b"-ax"], [b"-v"], [b"-av"], [b"-a-"]])
def test_usage(args: list[bytes]) -> None:
    """An unknown option, and one without its argument, are refused."""
    with pytest.raises(Usage, match="usage: it"):
        parse(args, "usage: it", flags=b"ab", valued=b"v")
