"""What every room that keeps files needs: folders of this user, and bytes that are on the disk when it says so."""

from __future__ import annotations

import os
from pathlib import Path


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
