"""Files that another process may read or tamper with: private folders, hashes, appearing whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.storage import user_folder

_CHUNK_BYTES = 1 << 22


def cache_home() -> Path:
    """Where this package may keep files for this user: under XDG_CACHE_HOME, otherwise ~/.cache."""
    return user_folder("XDG_CACHE_HOME", ".cache")


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


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def manifest_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and hash of files in ``folder``, by name."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in sorted(names)
    }


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError("missing", f"There is no {path}; make it again.") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise EngineError("truncated", f"{path} cannot be read as JSON ({error}); make it again.") from error
    if not isinstance(content, dict):
        raise EngineError("truncated", f"{path} does not hold a JSON object; make it again.")
    return content


@contextlib.contextmanager
def appearing_folder(folder: Path) -> Iterator[Path]:
    """A folder ``NAME.part-...`` to write to, which takes the place of ``folder`` when the block ends without an error.

    Raises:
        EngineError: ``build``: the disk is full, or the folder cannot be written.
    """
    part = folder.with_name(f"{folder.name}.part-{secrets.token_hex(4)}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        yield part
        for path in part.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        old = folder.with_name(f"{folder.name}.part-{secrets.token_hex(4)}")
        if folder.exists():
            folder.rename(old)  # a folder cannot be replaced by another in one step
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise EngineError(
            "build", f"{folder} could not be written: {error}. Nothing was left behind; free some space and try again."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
