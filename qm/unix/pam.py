"""PAM, asked whether a password is right and the account may be used.

By ctypes: the bindings that there are take text for bytes, and do not tell the modules where the peer is (PAM_RHOST),
which those that count failures and those that know networks want.  The constants are Linux-PAM's.
"""

from ctypes import CDLL, CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p, cast
from ctypes.util import find_library
from functools import cache
from typing import Final

from qm.errors import Temporary

_SUCCESS: Final = 0
# PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED
_REFUSALS: Final = frozenset((6, 7, 8, 10, 11, 12, 13))
_BUF_ERR, _CONV_ERR = 5, 19
_USER, _RHOST, _FAIL_DELAY = 2, 4, 10  # items
_DISALLOW_NULL: Final = 1  # an empty password in the store lets nobody in
_ECHO_OFF, _ECHO_ON = 1, 2  # styles of a message
_MESSAGES_MAX: Final = 32


class _Message(Structure):
    _fields_ = (("style", c_int), ("text", c_char_p))


class _Response(Structure):
    _fields_ = (("text", c_void_p), ("code", c_int))


_Conversation = CFUNCTYPE(c_int, c_int, POINTER(POINTER(_Message)), POINTER(POINTER(_Response)), c_void_p)
_Delay = CFUNCTYPE(None, c_int, c_uint, c_void_p)


class _Conv(Structure):
    _fields_ = (("function", _Conversation), ("data", c_void_p))


@cache
def _library() -> CDLL:
    """Raises Temporary if this machine has no PAM."""
    name = find_library("pam") or "libpam.so.0"
    try:
        library = CDLL(name)
    except OSError as error:
        raise Temporary("cannot check this password", detail="libpam.so.0 is missing; install libpam0g") from error
    for function in (library.pam_set_item, library.pam_get_item):
        function.argtypes = (c_void_p, c_int, c_void_p)
    for function in (library.pam_authenticate, library.pam_acct_mgmt, library.pam_end):
        function.argtypes = (c_void_p, c_int)
    return library


@cache
def _libc() -> CDLL:
    libc = CDLL(None)
    libc.calloc.restype = c_void_p
    libc.calloc.argtypes = (c_size_t, c_size_t)
    libc.strdup.restype = c_void_p
    libc.strdup.argtypes = (c_char_p,)
    return libc


_NO_DELAY: Final = _Delay(lambda status, wait_us, data: None)  # who serves the peer waits, not a worker


def _answering(name: bytes, secret: bytes) -> object:
    """The function that modules ask; PAM frees what it gives."""

    def converse(count: int, messages: object, responses: object, data: object) -> int:
        if not 0 < count <= _MESSAGES_MAX:
            return _CONV_ERR
        memory = _libc().calloc(count, 16)
        if not memory:
            return _BUF_ERR
        replies = cast(memory, POINTER(_Response))
        for number in range(count):
            style = messages[number].contents.style  # type: ignore[index]
            said = {_ECHO_OFF: secret, _ECHO_ON: name}.get(style)
            replies[number].text = _libc().strdup(said) if said is not None else None
        responses[0] = replies  # type: ignore[index]
        return _SUCCESS

    return _Conversation(converse)


def authenticate(service: bytes, name: bytes, secret: bytes, address: bytes) -> bytes | None:
    """Who *name* is for PAM, if *secret* is right and the account may be used; else None.

    Raises Temporary when PAM cannot tell.
    """
    pam = _library()
    handle = c_void_p()
    conversation = _Conv(_answering(name, secret), None)
    status = pam.pam_start(c_char_p(service), c_char_p(name), byref(conversation), byref(handle))
    if status != _SUCCESS:
        raise _trouble("pam_start", status)
    try:
        pam.pam_set_item(handle, _FAIL_DELAY, cast(_NO_DELAY, c_void_p))
        if address:
            pam.pam_set_item(handle, _RHOST, cast(c_char_p(address), c_void_p))
        for step in (pam.pam_authenticate, pam.pam_acct_mgmt):
            status = step(handle, _DISALLOW_NULL)
            if status in _REFUSALS:
                return None
            if status != _SUCCESS:
                raise _trouble(step.__name__, status)
        found = c_char_p()
        pam.pam_get_item(handle, _USER, cast(byref(found), c_void_p))
        return found.value or name
    finally:
        pam.pam_end(handle, status)


def _trouble(step: str, status: int) -> Temporary:
    return Temporary("cannot check this password now", detail=f"PAM: {step} failed with {status}; see the system's log")
