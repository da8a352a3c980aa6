"""pw2u: make users/assign of the accounts in a passwd file (qmail-pw2u).

Usage:   qm-pw2u [-/ohHuUC] [-c char]
Reads:   fd 0 (lines of passwd(5)), users/{include,exclude,mailnames,subusers,append}
Writes:  fd 1 (the text of users/assign), fd 2 (what is wrong)
As:      anybody who may look at the accounts' homes
Exits:   0 done; 100 usage; 111 trouble: nothing is written then
See:     qm-pw2u(8), qmail.md 12.4
"""

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from qm.errors import OK, TEMPORARY_ERRNO, Temporary
from qm.unix import log, standard
from qm.unix.options import parse
from qm.unix.program import Argv, Env, Usage, program

NAME: Final = b"qm-pw2u"
USAGE: Final = "usage: qm-pw2u [-/ohHuUC] [-c char]"
ALIAS: Final = b"alias"
SIZE_MAX: Final = 256 * 1024 * 1024  # bytes of a file


class Rules(NamedTuple):
    home: bytes = b"o"  # o, h, H: what a home that is missing, or another's, means
    upper: bool = False  # names with capitals count
    dash: bytes = b"-"
    break_char: bytes = b"-"  # between a name and an extension; empty: there are no extensions


class Account(NamedTuple):
    name: bytes
    uid: bytes
    gid: bytes
    home: bytes

    @property
    def fields(self) -> bytes:
        return b":".join(self)


class Names(NamedTuple):
    """The optional files in users/; None: there is none."""

    include: frozenset[bytes] | None
    exclude: frozenset[bytes]
    mailnames: dict[bytes, list[bytes]]
    subusers: list[list[bytes]]
    append: bytes


def _rules(argv: Argv) -> Rules:
    options, words = parse(argv[1:], USAGE, flags=b"/ohHuUC", valued=b"c")
    rules = Rules()
    for letter, value in options:
        if letter in b"ohH":
            rules = rules._replace(home=letter)
        elif letter in b"uU":
            rules = rules._replace(upper=letter == b"u")
        elif letter == b"/":
            rules = rules._replace(dash=b"-/")
        elif letter == b"c" and (len(value) != 1 or value == b":"):
            raise Usage(USAGE)
        else:
            rules = rules._replace(break_char=value)
    if words:
        raise Usage(USAGE)
    return rules


def _read(name: str) -> bytes | None:
    path = f"users/{name}"
    try:
        with open(path, "rb") as file:
            text = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Temporary("cannot read a file", detail=f"{path}: {error.strerror}") from error
    if len(text) > SIZE_MAX:
        raise Temporary("cannot read a file", detail=f"{path}: larger than {SIZE_MAX} bytes")
    return text


def _lines(text: bytes) -> list[bytes]:
    """As in a control file (qmail.md 2.4)."""
    lines = (line.rstrip(b" \t") for line in text.split(b"\n"))
    return [line for line in lines if line and not line.startswith(b"#")]


def _names() -> Names:
    include, exclude, mailnames, subusers, append = map(_read, Names._fields)
    fields = [line.split(b":") for line in _lines(mailnames or b"")]
    return Names(
        include=None if include is None else frozenset(map(bytes.lower, _lines(include))),
        exclude=frozenset(map(bytes.lower, _lines(exclude or b""))),
        mailnames={user.lower(): list(filter(None, names)) for user, *names in fields if names},
        subusers=[line.split(b":") for line in _lines(subusers or b"")],
        append=append or b"",
    )


def _account(count: int, line: bytes) -> Account | None:
    """The account of one line; None, with a warning, for a line that is none."""
    fields = line.split(b":")
    if line[:1] in (b"", b"#", b"+", b"-"):  # the last two ask for accounts of another database
        return None
    if len(fields) < 6 or not (fields[0] and fields[2].isdigit() and fields[3].isdigit()) or b"\0" in line:
        log.warning(NAME, f"line {count} is no account")
        return None
    return Account(fields[0], fields[2], fields[3], fields[5])


def _owns_home(account: Account, rules: Rules) -> bool:
    """Raises Temporary when only time, or the administrator, can tell."""
    if rules.home == b"H":
        return True
    try:
        return os.stat(account.home).st_uid == int(account.uid)
    except OSError as error:
        if rules.home == b"h" or error.errno in TEMPORARY_ERRNO:
            why = f"{os.fsdecode(account.home)}: {error.strerror}"
            raise Temporary("cannot look at a home directory", detail=why) from error
        return False


def _counts(account: Account, rules: Rules, names: Names) -> bool:
    if int(account.uid) == 0 or (not rules.upper and account.name != account.name.lower()):
        return False
    key = account.name.lower()
    if (names.include is not None and key not in names.include) or key in names.exclude:
        return False
    return _owns_home(account, rules)


def _entries(account: Account, rules: Rules, names: Names) -> Iterator[bytes]:
    for name in names.mailnames.get(account.name.lower(), [account.name]):
        yield b"=%b:%b:::\n" % (name, account.fields)
        if rules.break_char:
            yield b"+%b%b:%b:%b::\n" % (name, rules.break_char, account.fields, rules.dash)
    if account.name == ALIAS:
        yield b"+:%b:-::\n" % account.fields


def _subuser(fields: list[bytes], accounts: dict[bytes, Account], rules: Rules) -> Iterator[bytes]:
    if len(fields) < 4:
        raise Temporary("the subusers are broken", detail=f"users/subusers: {fields[0]!r}: three colons belong there")
    sub, user, pre = fields[:3]
    account = accounts.get(user)
    if account is None:
        raise Temporary("the subusers are broken", detail=f"users/subusers: {sub!r}: there is no user {user!r}")
    yield b"=%b:%b:%b:%b:\n" % (sub, account.fields, rules.dash, pre)
    if rules.break_char:
        yield b"+%b%b:%b:%b:%b-:\n" % (sub, rules.break_char, account.fields, rules.dash, pre)


def assign(passwd: bytes, rules: Rules, names: Names) -> bytes:
    """The text of users/assign; raises Temporary."""
    accounts: dict[bytes, Account] = {}
    entries: list[bytes] = []
    for count, line in enumerate(passwd.split(b"\n"), 1):
        account = _account(count, line)
        if account and account.name not in accounts and _counts(account, rules, names):
            accounts[account.name] = account
            entries += _entries(account, rules, names)
    if ALIAS not in accounts:
        raise Temporary("there is no user alias among the accounts, or its home is not its own")
    for fields in names.subusers:
        entries += _subuser(fields, accounts, rules)
    append = names.append if names.append.endswith(b"\n") or not names.append else names.append + b"\n"
    return b"".join([*entries, append, b".\n"])


@program()
def main(argv: Argv, env: Env) -> int:
    rules = _rules(argv)
    standard.write(assign(b"".join(standard.chunks()), rules, _names()))
    return OK
