"""Compiled tcprules: which connections are taken, asked for each of them."""

from typing import Final, NamedTuple

from qm.disk.cdb import BadCdb, Cdb
from qm.wire.tcprules import BadData, Decision, decode, keys

_ANSWERS_MAX: Final = 1000  # kept until the file changes


class Verdict(NamedTuple):
    decision: Decision
    address: bytes | None  # of the rule that decided; None: there is none


class Rules:
    """The rules at *path* (from *dir_fd*), which may be replaced at any time."""

    def __init__(self, path: str, *, optional: bool = False, dir_fd: int | None = None) -> None:
        """*optional*: without the file every connection is taken."""
        self._cdb = Cdb(path, dir_fd)
        self._optional = optional
        self._answers: dict[tuple[bytes, bytes | None, bytes | None], Verdict] = {}

    def judge(self, ip: bytes, host: bytes | None, info: bytes | None) -> Verdict:
        """What the rules say about a peer, of whom None is what is not known.  Raises BadCdb."""
        try:
            changed = self._cdb.refresh()
        except BadCdb:
            self._answers.clear()
            raise
        if changed:
            self._answers.clear()
        peer = ip, host, info
        verdict = self._answers.get(peer)
        if verdict is None:
            verdict = self._find(*peer)
            if len(self._answers) >= _ANSWERS_MAX:
                self._answers.clear()
            self._answers[peer] = verdict
        return verdict

    def _find(self, ip: bytes, host: bytes | None, info: bytes | None) -> Verdict:
        if not self._cdb.present and not self._optional:
            raise BadCdb("cannot read the rules", detail=f"{self._cdb.path}: no such file; make it with tcprules")
        for address in keys(ip, host, info):
            data = self._cdb.lookup(address)
            if data is not None:
                return Verdict(self._decode(data), address)
        return Verdict(Decision(), None)

    def _decode(self, data: bytes) -> Decision:
        try:
            return decode(data)
        except BadData as error:
            raise BadCdb("cannot read the rules", detail=f"{self._cdb.path}: {error}; make it with tcprules") from error
