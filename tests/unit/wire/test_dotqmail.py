"""The language of .qmail files (qmail.md 13.2, 13.3)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.errors import Temporary
from qm.wire.dotqmail import Kind, candidates, owner_names, parse

CORPUS = Path(__file__).parents[2] / "corpus" / "dotqmail"


def _result(text: bytes) -> bytes:
    """What a corpus file wants: a line for each instruction, or why the file is refused."""
    forward_only = text.startswith(b"mode x\n")
    try:
        steps = parse(text.removeprefix(b"mode x\n"), forward_only=forward_only)
    except Temporary as error:
        return f"refused {error.status} {error.public}\n".encode()
    return b"".join(b"%d %s %s\n" % (step.line, step.kind.value, step.argument) for step in steps)


@pytest.mark.parametrize("name", sorted(path.stem for path in CORPUS.glob("*.in")))
def test_corpus(name: str) -> None:
    """Each file of the corpus says what its .want file has."""
    assert _result((CORPUS / f"{name}.in").read_bytes()) == (CORPUS / f"{name}.want").read_bytes()


@pytest.mark.parametrize(
    ("dash", "ext", "names"),
    [
        (
            b"-",
            b"Foo.Bar-x",
            [(b".qmail-foo:bar-x", None), (b".qmail-foo:bar-default", b"x"), (b".qmail-default", b"Foo.Bar-x")],
        ),
        (
            b"-",
            b"a-b-",
            [
                (b".qmail-a-b-", None),
                (b".qmail-a-b-default", b""),
                (b".qmail-a-default", b"b-"),
                (b".qmail-default", b"a-b-"),
            ],
        ),
        (b"", b"", [(b".qmail", None), (b".qmaildefault", b"")]),
        (b"-", b"", [(b".qmail-", None), (b".qmail-default", b"")]),
        (b"-", b"Default", [(b".qmail-default", b"Default"), (b".qmail-default", b"Default")]),
        (
            b"-",
            b"x-DEFAULT",
            [(b".qmail-x-default", b"DEFAULT"), (b".qmail-x-default", b"DEFAULT"), (b".qmail-default", b"x-DEFAULT")],
        ),
        (b"-de", b"fault", [(b".qmail-default", None), (b".qmail-dedefault", b"fault")]),
        (b"-", b"../../x", [(b".qmail-::/::/x", None), (b".qmail-default", b"../../x")]),
    ],
)
def test_candidates(dash: bytes, ext: bytes, names: list[tuple[bytes, bytes | None]]) -> None:
    """The search goes from the whole extension to -default, lower case, dots as colons; DEFAULT keeps its case."""
    assert [tuple(candidate) for candidate in candidates(dash, ext)] == names


@given(st.binary(max_size=60))
def test_no_extension_leaves_the_home(ext: bytes) -> None:
    """No extension makes a name with a component of dots, so that none leads out of the home."""
    for name, _ in candidates(b"-", ext):
        assert name.startswith(b".qmail-")
        assert b"." not in name[1:]


def test_owner_names() -> None:
    """The owner files are those of the whole extension."""
    assert owner_names(b"-", b"My.List") == (b".qmail-my:list-owner", b".qmail-my:list-owner-default")


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(text: bytes, forward_only: bool) -> None:
    """Any bytes are instructions or a temporary failure, and never an instruction without an argument to act on."""
    try:
        steps = parse(text, forward_only=forward_only)
    except Temporary:
        return
    lines = text.split(b"\n")
    for step in steps:
        assert step.argument or step.kind is Kind.PROGRAM
        assert lines[step.line - 1].rstrip(b" \t").endswith(step.argument)
        assert not forward_only or step.kind is Kind.FORWARD
