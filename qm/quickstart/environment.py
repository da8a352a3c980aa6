"""Make .venv and what belongs into it; runs on a bare Python of Debian's, with nothing installed.

What is installed is what setup.cfg lists, no more.  A stamp in .venv tells which list it holds, so that a second call
does nothing. Every user must be able to read the interpreter, since root's programs become other users: one below /root
does not serve.
"""

from __future__ import annotations

import compileall
import configparser
import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence

OLDEST = (3, 11)
_CANDIDATES = ("python3.14", "python3.13", "python3.12", "python3.11")


class CannotPrepare(Exception):
    """Why there is no environment, in one line."""


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def requirements(root: str, extras: Sequence[str]) -> list[str]:
    """What setup.cfg asks for."""
    config = configparser.ConfigParser()
    config.read(os.path.join(root, "setup.cfg"), encoding="utf-8")
    lists = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    return [line.strip() for text in lists for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _version(python: str) -> tuple[int, int]:
    """(0, 0) if it does not run."""
    try:
        code = "import sys; print(*sys.version_info[:2])"
        text = subprocess.run([python, "-IS", "-c", code], capture_output=True, check=True, timeout=20).stdout
        major, minor = map(int, text.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0
    return major, minor


def readable_by_all(path: str) -> bool:
    """Whether every user may search the folders above *path*, and execute it."""
    path = os.path.realpath(path)
    while path != "/":
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
        path = os.path.dirname(path)
    return True


def _interpreter() -> str:
    """The Python to make .venv with: Debian's if it is new enough, else what runs this, else one of the PATH."""
    found = [shutil.which(name) for name in _CANDIDATES]
    tried = [python for python in ("/usr/bin/python3", sys.executable, *found) if python and os.path.exists(python)]
    new = [python for python in tried if _version(python) >= OLDEST]
    if not new:
        raise CannotPrepare(f"qm needs Python {OLDEST[0]}.{OLDEST[1]} or newer; this is {sys.version.split()[0]}")
    if os.geteuid() == 0:
        readable = [python for python in new if readable_by_all(python)]
        if not readable:
            raise CannotPrepare(f"other users cannot run {new[0]}; as root qm needs a Python that they can")
        new = readable
    return new[0]


def _run(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """The exit code of *command*, and all that it says."""
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _install_venv_package(python: str) -> None:
    """Debian has what makes a .venv in a package of its own."""
    major, minor = _version(python)
    package = "python3-venv" if python == "/usr/bin/python3" else f"python{major}.{minor}-venv"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotPrepare(f"{package} is missing; run: sudo apt-get install {package}")
    _say(f"{package} is missing; installing it with apt-get")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], ["apt-get", "-q", "-y", "install", package]):
        code, output = _run(command, env)
        if code:
            last = output.strip().rpartition("\n")[2]
            raise CannotPrepare(f"{' '.join(command)} failed: {last}")


def _make(venv: str) -> None:
    python = _interpreter()
    env = dict(os.environ)
    if _run([python, "-I", "-c", "import ensurepip, venv; ensurepip.version()"], env)[0]:
        _install_venv_package(python)
    _say(f"making .venv with {python}")
    code, output = _run([python, "-I", "-m", "venv", "--clear", venv], env)
    if code:
        raise CannotPrepare("cannot make .venv: " + " ".join(output.split()))


def _install(venv: str, wanted: list[str]) -> None:
    """pip, with what it is at."""
    command = [os.path.join(venv, "bin", "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    before, after = ("\r", 20 * " ") if sys.stderr.isatty() else ("", "\n")
    complaint = "pip failed"
    with subprocess.Popen(
        [*command, *wanted], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            text = line.decode("utf-8", "replace").strip()
            if text.startswith("Collecting "):
                name = re.split("[^A-Za-z0-9._-]", text.split()[1])[0]
                sys.stderr.write(f"{before}installing {name}{after}")
                sys.stderr.flush()
            elif text.startswith("ERROR:"):
                complaint = text[7:]
    sys.stderr.write(f"{before}{40 * ' '}{before}" if before else "")
    if pip.returncode:
        raise CannotPrepare(f"cannot install what setup.cfg asks for: {complaint}")


def _stamp(version: tuple[int, int], wanted: list[str]) -> str:
    """What a .venv says that holds *wanted* for its Python."""
    return "\n".join([f"python {version[0]}.{version[1]}", *wanted, ""])


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def prepare(root: str, extras: Sequence[str]) -> str:
    """The Python of a .venv in *root* that has what qm needs, and the *extras* of setup.cfg.  Raises CannotPrepare."""
    venv = os.path.join(root, ".venv")
    python = os.path.join(venv, "bin", "python")
    stamp = os.path.join(venv, "qm-" + "-".join(("run", *extras)))
    wanted = requirements(root, extras)
    version = _version(python)
    if version >= OLDEST and _read(stamp) == _stamp(version, wanted):
        return python
    try:
        with open(os.path.join(root, ".venv.lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another may be making it
            if _version(python) < OLDEST or not os.path.exists(os.path.join(venv, "bin", "pip")):
                _make(venv)
            version = _version(python)
            if _read(stamp) != _stamp(version, wanted):
                _install(venv, wanted)
            with open(stamp, "w", encoding="utf-8") as file:
                file.write(_stamp(version, wanted))
    except OSError as error:
        raise CannotPrepare(f"cannot write {error.filename or venv}: {error.strerror}") from error
    return python


def enter(root: str, script: str, argv: Sequence[str], *extras: str) -> None:
    """Come back as .venv's Python, isolated, with everything there; or end with one line that says why not."""
    os.umask(0o022)  # what is made here, every user must be able to read
    try:
        python = prepare(root, extras)
    except CannotPrepare as error:
        sys.exit(f"{os.path.basename(script)}: {error}")
    if os.path.realpath(sys.prefix) != os.path.realpath(os.path.join(root, ".venv")) or not sys.flags.isolated:
        os.execv(python, [python, "-I", os.path.abspath(script), *argv])
    compileall.compile_dir(os.path.join(root, "qm"), quiet=2)  # starts are slow without, and others may not write here
