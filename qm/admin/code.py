"""The programs of an installed home: a copy of the checkout's, with a Python environment of its own, in lib/.

    lib/qm, lib/bin, lib/control ...   as in a checkout, so that the launchers work as they do there
    lib/.venv                          a virtual environment with what qm needs, and no more
    lib/manifest                       the digest of each file above, as sha256sum(1) checks them
    bin                                a link to lib/bin

Everything belongs to root, and everybody may read it.  What the programs need is copied from the environment that runs
`qm install`: what was tested is what is installed, and nothing is fetched.  The copy is made beside the old one and
takes its place by two renames; a suite that runs has long imported what it needs.
"""

import compileall
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib import metadata
from typing import Final, NamedTuple

from qm.admin.action import Remove, read
from qm.errors import Permanent, Temporary
from qm.programs import PROGRAMS
from qm.quickstart import environment

MANIFEST: Final = "manifest"
_FOLDERS: Final = ("qm", "control", "alias", "docs", "packaging")
_FILES: Final = ("setup.cfg", "README.md", "CHANGELOG.md", "LICENSE")
_VENV_S: Final = 120.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SITE: Final = f".venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def _below(root: str, folder: str) -> Iterator[str]:
    """Files below *folder*, from *root*; compiled ones are made anew."""
    for path, folders, names in os.walk(os.path.join(root, folder)):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if not name.endswith(".pyc"):
                yield os.path.relpath(os.path.join(path, name), root)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()  # the packaging specification's "Names and normalization"


def _distributions(root: str) -> Iterator[metadata.Distribution]:
    """What setup.cfg asks for, and what that asks for, as far as it is installed.  Raises Permanent."""
    found = metadata.distributions(path=[os.path.join(root, _SITE)])
    installed = {_canonical(distribution.metadata["Name"]): distribution for distribution in found}
    wanted = environment.requirements(root, [])
    for line in wanted:
        if _required(line) not in installed:
            raise Permanent("something is missing", detail=f"{line} is not in {root}/.venv; run bin/quickstart there")
    seen: set[str] = set()
    while wanted:
        name = _required(wanted.pop())
        if name in installed and name not in seen:
            seen.add(name)
            yield installed[name]
            wanted += [line for line in installed[name].requires or () if "extra ==" not in line]


def _required(line: str) -> str:
    match = _NAME.match(line)
    return _canonical(match[0]) if match else ""


def _dependencies(root: str) -> Iterator[str]:
    """The files of our dependencies, from *root*."""
    for distribution in _distributions(root):
        paths = [os.path.normpath(os.path.join(_SITE, str(path))) for path in distribution.files or ()]
        paths += _egg_info(root, distribution)
        ours = [path for path in paths if path.startswith(f"{_SITE}/") and not path.endswith(".pyc")]
        present = [path for path in ours if os.path.isfile(os.path.join(root, path))]
        if not present:
            raise Permanent("a package does not tell its files", detail=str(distribution.metadata["Name"]))
        yield from present


def _egg_info(root: str, distribution: metadata.Distribution) -> Iterator[str]:
    """The description of a package in the older format, which does not list itself."""
    package = _canonical(distribution.metadata["Name"])
    for name in os.listdir(os.path.join(root, _SITE)):
        if name.endswith(".egg-info") and _canonical(name.partition("-")[0]) == package:
            yield from _below(root, os.path.join(_SITE, name))


def sources(root: str) -> list[str]:
    """What is copied from *root*.  Raises OSError, Permanent."""
    bins = [f"bin/{name}" for name in PROGRAMS if os.path.exists(os.path.join(root, "bin", name))]
    folders = [path for folder in _FOLDERS for path in _below(root, folder)]
    files = [name for name in _FILES if os.path.exists(os.path.join(root, name))]
    return sorted({*bins, *folders, *files, *_dependencies(root)})


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return sha256(file.read()).hexdigest()


def _manifest(root: str, paths: list[str]) -> str:
    return "".join(f"{digest(os.path.join(root, path))}  {path}\n" for path in paths)


class InstallCode(NamedTuple):
    """Copy the programs of *root* to *lib*, unless the same are there."""

    root: str
    lib: str

    def __str__(self) -> str:
        return f"copy the programs of {self.root} to {self.lib}, with a Python environment of their own"

    def is_done(self) -> bool:
        if os.path.realpath(self.root) == os.path.realpath(self.lib):
            return True
        installed = read(os.path.join(self.lib, MANIFEST))
        if installed is None or installed != _manifest(self.root, sources(self.root)):
            return False
        return not any(changes(self.lib))

    def do(self) -> None:
        new, old = f"{self.lib}.new", f"{self.lib}.old"
        for path in (new, old):
            if os.path.lexists(path):
                shutil.rmtree(path)
        umask = os.umask(0o022)
        try:
            self._build(new)
        finally:
            os.umask(umask)
        os.sync()  # thousands of files: one call for all, before they count
        if os.path.lexists(self.lib):
            os.rename(self.lib, old)
        os.rename(new, self.lib)
        shutil.rmtree(old, ignore_errors=True)

    def _build(self, new: str) -> None:
        os.mkdir(new, 0o755)
        _make_venv(os.path.join(new, ".venv"))
        paths = sources(self.root)
        for path in paths:
            _copy(os.path.join(self.root, path), os.path.join(new, path))
        with open(os.path.join(new, MANIFEST), "w", encoding="utf-8") as file:
            file.write(_manifest(new, paths))
        for folder in ("qm", _SITE):
            compiled = os.path.join(new, folder)
            compileall.compile_dir(compiled, quiet=2, stripdir=new, prependdir=self.lib, workers=1)


class RemoveCode(NamedTuple):
    """Take *lib* away: at once for who looks at it, since the command that does it is in there."""

    lib: str

    def __str__(self) -> str:
        return f"remove {self.lib} and all below it"

    def is_done(self) -> bool:
        return not os.path.lexists(self.lib)

    def do(self) -> None:
        old = f"{self.lib}.old"
        if os.path.lexists(old):
            shutil.rmtree(old)
        os.rename(self.lib, old)
        shutil.rmtree(old)


def tidy(lib: str) -> Iterator[Remove]:
    """What copies and removals that were cut short have left beside *lib*."""
    yield from (Remove(f"{lib}.{word}", below=True) for word in ("new", "old"))


def _copy(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    shutil.copyfile(source, target)
    os.chmod(target, 0o755 if os.stat(source).st_mode & stat.S_IXUSR else 0o644)


def _make_venv(path: str) -> None:
    """With the interpreter that this runs on, which every user must be able to run.  Raises Permanent, Temporary."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if not environment.readable_by_all(python):
        raise Permanent("other users cannot run this Python", detail=python)
    command = [python, "-I", "-m", "venv", "--without-pip", path]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_VENV_S, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).decode("utf-8", "replace").split())
        raise Temporary("cannot make the Python environment", detail=said)


def changes(lib: str) -> Iterator[tuple[str, str]]:
    """Files of *lib* that are not what was installed, or that others than root may write: path, and what is wrong."""
    manifest = read(os.path.join(lib, MANIFEST))
    if manifest is None:
        yield os.path.join(lib, MANIFEST), "missing"
        return
    for line in manifest.splitlines():
        wanted, _, path = line.partition("  ")
        path = os.path.join(lib, path)
        try:
            if digest(path) != wanted:
                yield path, "not the file that was installed"
        except OSError as error:
            yield path, (error.strerror or "cannot be read").lower()
    yield from _writable(lib)


def _writable(lib: str) -> Iterator[tuple[str, str]]:
    for folder, _, names in os.walk(lib):
        for path in [folder, *(os.path.join(folder, name) for name in names)]:
            status = os.lstat(path)
            if status.st_uid != os.geteuid():
                yield path, f"belongs to uid {status.st_uid}"
            if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o6022:
                yield path, f"mode {stat.S_IMODE(status.st_mode):04o}: others can write it, or it changes who runs it"
