"""A bundle as one zip file: the same bytes every time, and unpacked only where it belongs."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path

from edgekit.bundle.check import read_manifest
from edgekit.bundle.names import inside
from edgekit.errors import ArtifactError
from edgekit.files import storage_errors, write_atomic

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: times of the build stay out
_CHUNK = 1 << 20
MAX_MEMBERS = 10_000
MAX_BYTES = 2 << 30


def pack(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Zip a bundle's manifest, the files it lists and the card; returns the path."""
    root, stream = Path(directory), io.BytesIO()
    manifest = read_manifest(root)
    names = ["manifest.json", *sorted(manifest["files"])]
    if (root / "MODEL_CARD.md").is_file():
        names.append("MODEL_CARD.md")
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            member = zipfile.ZipInfo(name, _DATE)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, inside(root, name).read_bytes())
    write_atomic(path, stream.getvalue())
    return Path(path)


def unpack(path: str | os.PathLike[str], directory: str | os.PathLike[str]) -> Path:
    """Unpack a bundle into a new or empty directory.

    Raises: ArtifactError for a file that is no zip, a member whose name leaves the directory, a link, or an
        archive that swells beyond MAX_BYTES; then nothing is left behind.
    """
    root = Path(directory)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ArtifactError(f"{root}: not an empty directory: a new or empty one")
    with storage_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(path, archive, temporary)
            temporary.chmod(0o755)
            os.rename(temporary, root)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, zlib.error) as error:
            raise ArtifactError(f"{path}: not a usable zip ({error}): a bundle packed by edgekit") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return root


def _extract(path: str | os.PathLike[str], archive: zipfile.ZipFile, root: Path) -> None:
    members = [member for member in archive.infolist() if not member.is_dir()]
    _check_members(path, members)
    places = [inside(root, member.filename) for member in members]
    left = MAX_BYTES
    for member, place in zip(members, places, strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, open(place, "wb") as file:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ArtifactError(f"{path}: unpacks to more than {MAX_BYTES} bytes: a bundle")
                file.write(chunk)


def _check_members(path: str | os.PathLike[str], members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS or len({m.filename for m in members}) != len(members):
        raise ArtifactError(f"{path}: {len(members)} members, or one twice: a bundle packed by edgekit")
    for member in members:
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ArtifactError(f"{path}: {member.filename[:80]!r} is a link: plain files only")
        if "\x00" in member.orig_filename:
            raise ArtifactError(
                f"{path}: {member.orig_filename[:80]!r}: a relative name inside the directory"
            )
