"""This machine's accounts and their passwords, asked of libc itself.

The pwd module answers "no such user" also when there was no answer (no descriptor left, the directory server is down),
which here would return mail; spwd and crypt leave Python with 3.13.  The structures are those of Linux, glibc and musl.
"""

import errno
from collections.abc import Callable
from ctypes import (
    CDLL,
    Array,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_long,
    c_size_t,
    c_uint32,
    c_ulong,
    c_void_p,
    create_string_buffer,
)
from functools import cache
from typing import Final, NamedTuple

from qm.errors import Temporary

_NOT_FOUND: Final = frozenset((0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM))  # getpwnam(3), "Errors"
_BUFFER: Final = 4096  # bytes for the strings of one record, at first
_BUFFER_MAX: Final = 1 << 20
_LIBC: Final = CDLL(None)


class Account(NamedTuple):
    name: bytes
    uid: int
    gid: int
    home: bytes
    shell: bytes


class Shadow(NamedTuple):
    hash: bytes
    changed_day: int  # days since 1970; -1: not set, here and below
    days_max: int  # a password must be changed after so many days
    days_inactive: int  # and the account is closed so many days later
    expires_day: int


class _Passwd(Structure):
    _fields_ = (
        ("name", c_char_p),
        ("passwd", c_char_p),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("gecos", c_char_p),
        ("dir", c_char_p),
        ("shell", c_char_p),
    )


class _Spwd(Structure):
    _fields_ = (
        ("namp", c_char_p),
        ("pwdp", c_char_p),
        ("lstchg", c_long),
        ("min", c_long),
        ("max", c_long),
        ("warn", c_long),
        ("inact", c_long),
        ("expire", c_long),
        ("flag", c_ulong),
    )


def _ask(function: Callable[..., int], name: bytes, record: Structure) -> Array[c_char] | None:
    """Fill *record*; gives the memory that its strings are in, None if there is no such name."""
    size = _BUFFER
    while True:
        memory = create_string_buffer(size)
        found = c_void_p()
        status = function(name, byref(record), memory, c_size_t(size), byref(found))
        if status == errno.ERANGE and size < _BUFFER_MAX:
            size *= 4
        elif found:
            return memory
        elif status in _NOT_FOUND:
            return None
        else:
            why = errno.errorcode.get(status, str(status))
            raise Temporary("cannot look up accounts now", detail=f"the account database: {why}")


def account(name: bytes) -> Account | None:
    """The account *name*; raises Temporary when nobody knows."""
    record = _Passwd()
    memory = _ask(_LIBC.getpwnam_r, name, record)
    if memory is None:
        return None
    return Account(record.name, record.uid, record.gid, record.dir or b"", record.shell or b"")


def shadow(name: bytes) -> Shadow | None:
    """The password entry of account *name*, which only root may read; raises Temporary when nobody knows."""
    record = _Spwd()
    memory = _ask(_LIBC.getspnam_r, name, record)
    if memory is None:
        return None
    return Shadow(record.pwdp or b"", record.lstchg, record.max, record.inact, record.expire)


@cache
def libcrypt() -> Callable[[bytes, bytes], bytes | None]:
    """crypt(3) itself; raises Temporary if this machine has none."""
    for name in ("libcrypt.so.1", "libcrypt.so.2", None):  # glibc's and libxcrypt's, its later name, musl's libc
        try:
            function = CDLL(name, use_errno=True).crypt
        except (OSError, AttributeError):
            continue
        function.restype = c_char_p
        function.argtypes = (c_char_p, c_char_p)
        return function
    raise Temporary("cannot check this password", detail="libcrypt.so.1 is missing; install libcrypt1 or libxcrypt")


def crypt(secret: bytes, setting: bytes) -> bytes | None:
    """crypt(3): the hash of *secret* with the method and salt that *setting*, a hash, begins with.

    None if libcrypt does not know that method.  Not for threads.  Raises Temporary if this machine has no libcrypt.
    """
    found = libcrypt()(secret, setting)
    return None if found is None or found.startswith(b"*") else found  # *0 and *1 are libxcrypt's failure tokens
