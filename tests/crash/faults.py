"""System calls that fail, and processes that are killed, at a chosen moment."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

CALLS_MAX: Final = 100  # of one run; more means that it does not end


class Faults:
    """The n-th call of some functions of module os, counted over all of them, fails with an error number."""

    def __init__(self, names: Sequence[str], error: int) -> None:
        self._real = {name: getattr(os, name) for name in names}
        self._error = error
        self._left = 0
        self.failed: str | None = None  # the function that has failed

    def _wrap(self, name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self._left -= 1
            if self._left == 0:
                self.failed = name
                raise OSError(self._error, os.strerror(self._error))
            return self._real[name](*args, **kwargs)

        return call

    @contextmanager
    def at(self, call: int) -> Iterator[None]:
        """Within the block the call number *call*, from 1, fails."""
        self._left, self.failed = call, None
        for name in self._real:
            setattr(os, name, self._wrap(name))
        try:
            yield
        finally:
            for name, real in self._real.items():
                setattr(os, name, real)


def killed(action: Callable[[], object]) -> int:
    """Do *action*, which must not fail, in a process of its own; the signal that has ended it, 0 if it ended well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the process has failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def kill_me(*_: object) -> None:
    """Die as in a power failure: without a chance to tidy up."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()
