"""Folders of saved scenes: replaced whole or not at all, and read only when every byte is the one that was written.

``storage.whole_folder`` writes them. What a killed process left behind is removed by the next one that writes to the
same place, and an earlier folder that was being replaced at that moment is read where it is.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from spatial_mllm_ros.errors import StorageError
from spatial_mllm_ros.storage import (
    PRIVATE,
    bytes_sha256,
    is_temporary,
    json_object,
    leftovers,
    locked,
    manifest_of,
    recovered,
    remove_leftovers,
    whole_folder,
)

MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 256 << 20  # one MiB is enough for a thousand frames
_MAX_PATH_BYTES = 4096
_OURS = re.compile(r"manifest\.json|voxels\.npy|(image|depth|points|confidence)_\d{1,20}\.(jpg|png|npy)")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def checked_path(directory: str | os.PathLike[str], root: Path | None = None) -> Path:
    """The folder that ``directory`` names, with no link on the way to it; whether it exists is not looked at.

    Args:
        directory: as somebody sent it; nothing in it is trusted.
        root: the folder must lie below this one; None for anywhere.

    Raises:
        StorageError: ``path``: not an absolute plain path, its parent does not exist, it is a link, or it leads out of
            ``root``.
    """
    text = os.fspath(directory)
    shown = repr(text[:120])
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise _bad_path(shown, "is not valid text") from None
    if any(byte < 32 or byte == 127 for byte in encoded):
        raise _bad_path(shown, "has control characters")
    path = Path(text)
    if not path.is_absolute():
        raise _bad_path(shown, "is not an absolute path")
    if len(encoded) > _MAX_PATH_BYTES or any(len(os.fsencode(part)) > 240 for part in path.parts):
        raise _bad_path(shown, "is too long")
    if ".." in path.parts:
        raise _bad_path(shown, "goes up by '..'")
    if not path.name or is_temporary(path.name):
        raise _bad_path(shown, "is no name for a scene: folders that are being written have such names")
    try:
        place = path.parent.resolve(strict=True) / path.name
        if place.is_symlink():
            raise _bad_path(shown, "is a link")
        if root is not None and root.resolve(strict=True) not in place.parents:
            raise _bad_path(shown, f"does not lie below {root}, the only folder in which scenes are kept")
        if not place.parent.is_dir():
            raise _bad_path(shown, f"lies in {place.parent}, which is no folder")
    except FileNotFoundError as error:
        raise _bad_path(shown, f"lies in a folder that does not exist ({error.filename})") from error
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        raise _bad_path(shown, f"cannot be looked up ({error})") from error
    return place


def replace_folder(place: Path, format_name: str, write: Callable[[Path], Mapping[str, Any]]) -> None:
    """Has ``write`` fill a folder, completes it with the manifest, and puts it at ``place``.

    Args:
        place: as ``checked_path`` gives it.
        format_name: as the manifest's "format"; a folder at ``place`` is replaced only if it is of this format too.
        write: given an empty folder; writes files to it and returns the manifest without the hashes of files and of
            itself, which are added here.

    Raises:
        StorageError: ``occupied``, ``busy``, ``disk``, ``permission``; what was there before is there still.
    """
    try:
        with locked(place.parent):
            _refuse_to_replace_another(place, format_name)
            _refuse_other_leftovers(place)
            remove_leftovers(place)
            with whole_folder(place, mode=PRIVATE, replace=True) as part:
                manifest = {"format": format_name, **write(part)}
                manifest["files"] = manifest_of(part, (path.name for path in part.iterdir()))
                (part / MANIFEST_NAME).write_bytes(_sealed(manifest))
    except BlockingIOError:
        raise StorageError(
            "busy", f"Another process is saving a scene in {place.parent}; try again when it has ended."
        ) from None
    except OSError as error:
        _explain(place, error)


def _refuse_other_leftovers(place: Path) -> None:
    for path in leftovers(place):
        if path.is_symlink() or not _only_ours(path):
            raise StorageError(
                "occupied", f"{path} is in the way and is not what an interrupted save leaves; move it away."
            )


def _refuse_to_replace_another(place: Path, format_name: str) -> None:
    if not os.path.lexists(place):
        return
    try:
        found = json.loads((place / MANIFEST_NAME).read_bytes())["format"] if _only_ours(place) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found = None
    if found != format_name:
        raise StorageError(
            "occupied",
            f"{place} is there already and is not a saved scene, or holds other files too; it is left as it is. Name "
            "another folder, or move this one away.",
        )


def _only_ours(folder: Path) -> bool:
    return folder.is_dir() and all(_OURS.fullmatch(entry.name) and entry.is_file() for entry in folder.iterdir())


def _explain(place: Path, error: OSError) -> NoReturn:
    if error.errno in _FULL:
        raise StorageError(
            "disk", f"{place} could not be written: the disk is full ({error.strerror}). Free some space and try again."
        ) from error
    if error.errno in _FORBIDDEN:
        raise StorageError(
            "permission",
            f"{place} could not be written: {error.strerror}, {error.filename}. Let this user write to {place.parent}.",
        ) from error
    raise StorageError("disk", f"{place} could not be written: {error}. Check the disk and try again.") from error


class SavedFolder:
    """A folder that ``replace_folder`` wrote: its manifest, checked, and its files, each checked when it is read.

    Args:
        place: as ``checked_path`` gives it; where an interrupted save left the folder under NAME.previous, that is it.
        format_name: what the manifest must say of itself.
        version: the highest version that is understood.

    Raises:
        StorageError: ``missing``, ``foreign``, ``newer``, ``truncated``, ``tampered``, ``permission``.
    """

    def __init__(self, place: Path, *, format_name: str, version: int) -> None:
        self.folder = recovered(place)
        if not self.folder.is_dir():
            raise StorageError("missing", f"There is no folder {place}; name one that save_scene wrote.")
        content = self._bytes(MANIFEST_NAME, _MAX_MANIFEST_BYTES)
        self.manifest, self._manifest_bytes = _checked_manifest(content, self.folder), len(content)
        if self.manifest.get("format") != format_name:
            raise StorageError(
                "foreign",
                f"{self.folder / MANIFEST_NAME} is of the format {str(self.manifest.get('format'))[:40]!r} and not "
                f"{format_name!r}; name a folder that save_scene wrote.",
            )
        found = self.manifest.get("version")
        if not isinstance(found, int) or not 1 <= found <= version:
            raise StorageError(
                "newer",
                f"{self.folder / MANIFEST_NAME} has version {str(found)[:40]}; this program reads up to {version}. "
                f"Load it with a release not older than the one that wrote it, "
                f"{str(self.manifest.get('code_version'))[:40]}.",
            )
        self.used: set[str] = set()  #: names of the files read so far
        _check_seal(self.manifest, self.folder)
        self._check_listing()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return self._manifest_bytes + sum(entry["bytes"] for entry in self.manifest["files"].values())

    def read(self, name: str) -> bytes:
        """A file's bytes; those that were checked, not read a second time.

        Raises:
            StorageError: ``missing``, ``truncated``, ``tampered``, ``permission``.
        """
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise StorageError(
                "tampered", f"{self.folder / MANIFEST_NAME} uses {name!r} and does not list it. Use another copy."
            )
        content = self._bytes(name, entry["bytes"])
        if bytes_sha256(content) != entry["sha256"]:
            raise StorageError(
                "tampered",
                f"The SHA-256 of {self.folder / name} is not the one in its manifest; it is refused. Use another copy, "
                "or save the scene again.",
            )
        self.used.add(name)
        return content

    def _bytes(self, name: str, most: int) -> bytes:
        path = self.folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise StorageError("foreign", f"{path} is not a plain file; it is refused. Use another copy.")
                exact = name != MANIFEST_NAME
                if status.st_size > most or (exact and status.st_size != most):
                    raise StorageError(
                        "truncated",
                        f"{path} has {status.st_size} bytes instead of {most}; it is refused. Use another copy, or "
                        "save the scene again.",
                    )
                return stream.read(most + 1)
        except FileNotFoundError:
            raise StorageError(
                "missing", f"There is no {path}; the folder is no saved scene, or not whole. Use another copy."
            ) from None
        except OSError as error:
            cause = "permission" if error.errno in _FORBIDDEN else "foreign"
            raise StorageError(cause, f"{path} cannot be read: {error.strerror}. Use another copy.") from error

    def _check_listing(self) -> None:
        try:
            present = {entry.name for entry in self.folder.iterdir()} - {MANIFEST_NAME}
        except OSError as error:
            raise StorageError("permission", f"{self.folder} cannot be listed: {error.strerror}.") from error
        listed = set(self.manifest["files"])
        if lost := sorted(listed - present):
            raise StorageError("missing", f"{_names(lost)} missing from {self.folder}; use another copy.")
        if added := sorted(present - listed):
            raise StorageError(
                "foreign", f"{_names(added)} in {self.folder} and not of the saved scene; move what is not of it away."
            )


def _checked_manifest(content: bytes, folder: Path) -> dict[str, Any]:
    try:
        return json_object(content)
    except ValueError as error:
        raise StorageError(
            "truncated", f"{folder / MANIFEST_NAME} cannot be read as JSON ({error}); use another copy."
        ) from error
    except TypeError as error:
        raise StorageError("foreign", f"{folder / MANIFEST_NAME} is no manifest: {error}. Use another copy.") from error


def _check_seal(manifest: Mapping[str, Any], folder: Path) -> None:
    sealed = {key: value for key, value in manifest.items() if key != "sha256"}
    files = manifest.get("files")
    if manifest.get("sha256") != _digest(sealed) or not isinstance(files, dict):
        raise StorageError(
            "tampered",
            f"{folder / MANIFEST_NAME} has been changed since it was written: its own SHA-256 differs. Use another "
            "copy, or save the scene again.",
        )
    for name, entry in files.items():
        plain = isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
        if not plain or not _OURS.fullmatch(name):
            raise StorageError(
                "tampered", f"{folder / MANIFEST_NAME} lists {name[:80]!r}, which no saved scene has. Use another copy."
            )


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps({**manifest, "sha256": _digest(manifest)}, indent=1, sort_keys=True).encode()


def _digest(manifest: Mapping[str, Any]) -> str:
    return bytes_sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in names[:5])
    return f"{shown}{f' and {len(names) - 5} more' if len(names) > 5 else ''} {'is' if len(names) == 1 else 'are'}"


def _bad_path(shown: str, why: str) -> StorageError:
    return StorageError("path", f"The folder {shown} {why}; give the absolute path of a folder for the scene.")
