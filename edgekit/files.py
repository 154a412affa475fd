"""Files that are written whole or not at all, their hashes, what disks refuse, and where the cache lives."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.errors import StoreError

_ELSEWHERE = "choose another --out or --cache"
_FULL = "the disk is full: free some space"
REFUSALS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "larger than a file may be here (ulimit -f, or the file system): raise the limit",
    errno.ENAMETOOLONG: "the name is too long for this file system: a shorter --out or --cache",
    errno.EACCES: f"no permission to write: {_ELSEWHERE}",
    errno.EPERM: f"no permission to write: {_ELSEWHERE}",
    errno.EROFS: f"a read-only file system: {_ELSEWHERE}",
    errno.ENOTDIR: f"a file is in the way: {_ELSEWHERE}",
    errno.EEXIST: f"a file is in the way: {_ELSEWHERE}",
    errno.EISDIR: f"a directory is in the way: {_ELSEWHERE}",
    errno.ELOOP: f"links that go round in a circle: {_ELSEWHERE}",
    errno.EILSEQ: f"a name that this file system cannot hold: {_ELSEWHERE}",
    errno.EIO: "the disk fails to read or write: look at it, or " + _ELSEWHERE,
    errno.EMFILE: "too many open files (ulimit -n): raise the limit",
}
_LEAST_FREE = 1 << 16  # bytes; below it a writer that gives no reason has met a full disk


def home() -> Path:
    """The user's home; for one without, neither $HOME nor an entry in passwd, a folder for temporary files.

    Raises: StoreError when that folder is someone else's: everybody may prepare one, with anything in it.
    """
    if has_home():
        return Path.home()
    place = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
    with storage_errors(place):
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StoreError(f"{place}: someone else's, and there is no home: set HOME, or --cache")
    return place


def has_home() -> bool:
    """Whether the user has a home directory: $HOME, or an entry in passwd."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def cache_home() -> Path:
    """$XDG_CACHE_HOME, or .cache in the user's home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache")


def default_root() -> Path:
    """$EDGEKIT_CACHE, or edgekit/ under the user's cache directory."""
    return Path(os.environ.get("EDGEKIT_CACHE") or cache_home() / "edgekit")


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it, with ~ for a home; one that names no home stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def escaped(name: str) -> str:
    """A name as text that any file can hold: bytes that were no UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def sha256_file(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def storage_errors(where: str | os.PathLike[str]) -> Iterator[None]:
    """Disk full, no permission and the like under `where`, as one StoreError line.

    Native writers have exceptions of their own: those that name the system's error, and those that name
    nothing while the disk is full, are read as what they mean.
    """
    try:
        yield
    except Exception as error:
        reason = REFUSALS.get(_errno(error) or 0)
        if reason is None and _without_reason(error) and _is_full(Path(where)):
            reason = _FULL
        if reason is None:
            raise
        raise StoreError(f"{getattr(error, 'filename', None) or where}: {reason}") from error


def _errno(error: Exception) -> int | None:
    """The system's error number; safetensors gives it in words: "... (os error 28)"."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if re.search(r"requested and -?\d+ written", str(error)):  # numpy drops the number
        limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
        return errno.EFBIG if limited else errno.ENOSPC
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found.group(1)) if found else None


def _without_reason(error: Exception) -> bool:
    """Of torch and other native writers."""
    return isinstance(error, RuntimeError) or (isinstance(error, OSError) and not error.errno)


def _is_full(where: Path) -> bool:
    try:
        return shutil.disk_usage(_existing(where)).free < _LEAST_FREE
    except OSError:
        return False


def _existing(path: Path) -> Path:
    """`path`, or the nearest directory above it that is there."""
    path = Path(os.path.abspath(path))
    while not os.path.lexists(path):
        path = path.parent
    return path


def refuse_unwritable(directory: str | os.PathLike[str]) -> None:
    """Say before any work that a directory could not be made or written later; nothing is created.

    Raises: StoreError.
    """
    path = Path(os.path.abspath(directory))
    with storage_errors(path):
        place = _existing(path)
        longest = os.pathconf(place, "PC_NAME_MAX") if place.is_dir() else 255
        for part in path.parts[1:]:
            if len(os.fsencode(part)) > longest - len(".12345678.old.."):  # what is written beside it first
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
        if not place.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if not os.access(place, os.W_OK | os.X_OK):
            read_only = os.statvfs(place).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code), str(place))


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file whole or not at all; of text what UTF-8 cannot hold (names of files) is escaped."""
    path = Path(path)
    payload = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
