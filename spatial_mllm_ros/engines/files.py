"""Files that another process may tamper with: a private folder, and files compared with their manifest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.storage import PRIVATE, json_object, sha256_of, whole_folder


def private_folder(folder: Path) -> Path:
    """Makes ``folder`` with mode 0700, or checks the one that is there; returns it.

    An engine is native code that runs when it is deserialised, so nobody else may be able to put one here.

    Raises:
        EngineError: ``unsafe``: it is a link, belongs to another user, or others can enter it, or exchange it because
            the folder that it lies in is open to them (as a shared temporary folder is).
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status, parent = folder.lstat(), folder.parent.stat()
    except OSError as error:
        raise EngineError("unsafe", f"The folder {folder} cannot be made or read: {error}.") from error
    if folder.is_symlink() or not folder.is_dir():
        raise EngineError("unsafe", f"{folder} is not a folder of its own; remove it, or choose another cache folder.")
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise EngineError(
            "unsafe",
            f"{folder} has mode {status.st_mode & 0o777:04o} and owner {status.st_uid}; a folder of engines "
            f"must belong to this user and be closed to all others: chmod 700 {folder}.",
        )
    if parent.st_uid not in (0, os.getuid()) or parent.st_mode & 0o022:
        raise EngineError(
            "unsafe",
            f"{folder} lies in {folder.parent}, which others can write to; choose a cache folder in a place of this "
            "user's own.",
        )
    return folder


def check_manifest(folder: Path, manifest: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares the files with what was written down about them.

    Raises:
        EngineError: ``missing``, ``truncated`` or ``tampered``, naming the file.
    """
    for name, stated in manifest.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise EngineError("missing", f"{path} is listed in its manifest but is no plain file; make it again.")
        size = path.stat().st_size
        if size != stated["bytes"]:
            raise EngineError(
                "truncated",
                f"{path} has {size} bytes, its manifest says {stated['bytes']}; it is refused, make it again.",
            )
        if sha256_of(path) != stated["sha256"]:
            raise EngineError(
                "tampered", f"The SHA-256 of {path} is not the one in its manifest; it is refused, make it again."
            )


def read_manifest(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        EngineError: ``missing``: there is no such file; ``truncated``: it is not a JSON object.
    """
    try:
        return json_object(path.read_bytes())
    except FileNotFoundError:
        raise EngineError("missing", f"There is no {path}; make it again.") from None
    except (OSError, ValueError, TypeError) as error:
        raise EngineError("truncated", f"{path} cannot be read as JSON ({error}); make it again.") from error


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """``storage.whole_folder`` for this user alone, in the place of an earlier one.

    Raises:
        EngineError: ``build``: the disk is full, or the folder cannot be written.
    """
    try:
        with whole_folder(folder, mode=PRIVATE, replace=True) as part:
            yield part
    except OSError as error:
        raise EngineError(
            "build", f"{folder} could not be written: {error}. Nothing was left behind; free some space and try again."
        ) from error
