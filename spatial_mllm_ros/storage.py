"""What every room that keeps files needs: folders of this user, and bytes that are on the disk when it says so."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def user_folder(variable: str, under_home: str) -> Path:
    """The folder of one kind that this package has for this user: under ``variable`` of the environment, else in home.

    The XDG base directory specification; by it, a relative path in the variable is to be ignored.
    """
    stated = os.environ.get(variable, "")
    base = Path(stated) if stated and Path(stated).is_absolute() else Path.home() / under_home
    return base / "spatial_mllm_ros"


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file with mode 0600 and waits until the disk has it.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in ``folder``: what was made, renamed and removed there.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` sorted and indented; a reader never sees half of it, and an old file stays on failure.

    Raises:
        OSError: the folder does not exist or cannot be written.
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    write_text(path, json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, whole or not at all.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
