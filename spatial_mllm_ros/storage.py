"""Files and folders: written whole or not at all, hashed, locked; and the folders that this package has for a user.

What is written here is on the disk when the function returns, or when the ``with`` block ends: the content is flushed
before it takes its name, and the name is flushed after. A process that is killed at any moment leaves the old content
or the new one. Errors of the file system leave as ``OSError``: each caller knows what the file is for and says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: Modes of files: for this user alone, and for everybody to read. A folder is open to those who may read its files.
PRIVATE, READABLE = 0o600, 0o644
_APP = "spatial_mllm_ros"
_ENDING = r"\.(part-[0-9a-f]{8}|previous)"
_CHUNK_BYTES = 1 << 22
_LOCK_POLL_S = 0.2
_WAITING_PERIOD_S = 5.0


# Folders of this user


def user_cache() -> Path:
    """Where this package keeps what can be made again: under XDG_CACHE_HOME, otherwise ~/.cache."""
    from platformdirs import user_cache_path  # not needed by most commands

    return user_cache_path(_APP)


def user_state() -> Path:
    """Where this package keeps what a user wants to find again: under XDG_STATE_HOME, otherwise ~/.local/state."""
    from platformdirs import user_state_path

    return user_state_path(_APP)


# Writing


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int = READABLE) -> Iterator[Path]:
    """Gives a path to write to; the file takes the place of ``path`` when the block ends without an error.

    The path given is ``.NAME.XXXX.part`` in the same folder, with the suffix of NAME once more, by which some writers
    choose the format.

    A link is followed: the file that it names is written.

    Raises:
        OSError: the folder does not exist or cannot be written; an old file is as it was.
    """
    path = _target(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".part{path.suffix}")
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
        part.chmod(mode)
        _flush(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def write_bytes(path: Path, content: bytes, *, mode: int = READABLE) -> None:
    """Writes a file.

    Raises:
        OSError: the folder does not exist or cannot be written; an old file is as it was.
    """
    with whole_file(path, mode=mode) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str, *, mode: int = READABLE) -> None:
    """Writes ``text`` as UTF-8; see ``write_bytes``."""
    write_bytes(path, text.encode(), mode=mode)


def write_json(path: Path, content: Mapping[str, Any], *, mode: int = READABLE) -> None:
    """Writes ``content`` as JSON, sorted and indented; see ``write_bytes``.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", mode=mode)


@contextlib.contextmanager
def whole_folder(folder: Path, *, mode: int = READABLE, replace: bool = False) -> Iterator[Path]:
    """Gives an empty folder to write to, which takes the place of ``folder`` when the block ends without an error.

    The folder given is ``NAME.part-XXXXXXXX`` beside it. Of two writers to the same folder the later one wins or
    fails. A folder cannot be replaced by another in one step: the earlier one is called ``NAME.previous`` for a moment,
    and is found by that name if the process ends just then; see ``recovered``.

    Args:
        folder: its parents are made. With ``replace`` a link is followed: the folder that it names is replaced.
        mode: of the files; the folder and those in it can be entered by whoever may read the files.
        replace: put it in the place of an earlier folder; otherwise there must be none.

    Raises:
        FileExistsError: there is a folder already, and ``replace`` is off.
        NotADirectoryError: ``replace`` is on, and a file is there.
        OSError: it cannot be written; an earlier folder is as it was.
    """
    if replace:
        folder = _target(folder)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    else:
        _refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.part-{secrets.token_hex(4)}")
    part.mkdir(mode=0o700)
    try:
        yield part
        for path in [path for path in part.rglob("*") if not path.is_symlink()] + [part]:
            path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)
            _flush(path)
        if replace:
            _exchange(folder, part)
        else:
            _refuse_existing(folder)
            part.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if replace:
        shutil.rmtree(_previous(folder), ignore_errors=True)


def recovered(folder: Path) -> Path:
    """``folder``, or the earlier one where a process ended in the moment of replacing it."""
    previous = _previous(folder)
    return previous if not os.path.lexists(folder) and previous.is_dir() else folder


def leftovers(folder: Path) -> list[Path]:
    """What ended processes left beside ``folder``: unfinished folders, and an earlier one that was being replaced."""
    names = re.compile(re.escape(folder.name) + _ENDING)
    return sorted(path for path in folder.parent.iterdir() if names.fullmatch(path.name))


def remove_leftovers(folder: Path) -> None:
    """Removes what ended processes left beside ``folder``, and brings back an earlier one that was being replaced.

    For a caller that knows that no other process writes ``folder`` now.

    Raises:
        OSError: it cannot be removed.
    """
    earlier = recovered(folder)
    if earlier != folder:
        earlier.rename(folder)
    for path in leftovers(folder):
        shutil.rmtree(path)


def is_temporary(name: str) -> bool:
    """Whether a folder of this name is one that ``whole_folder`` is working on, or that it left behind."""
    return re.fullmatch(".+" + _ENDING, name) is not None


def _target(path: Path) -> Path:
    """What a link names, in the end; other paths as they are."""
    return path.resolve() if path.is_symlink() else path


def _exchange(folder: Path, part: Path) -> None:
    previous = _previous(folder)
    if os.path.lexists(folder):
        if previous.exists():
            shutil.rmtree(previous)  # left by a process that ended after it had replaced it
        folder.rename(previous)
    try:
        part.rename(folder)
    except OSError:
        if previous.exists():
            previous.rename(folder)
        raise


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _refuse_existing(folder: Path) -> None:
    if os.path.lexists(folder):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))


def _flush(path: Path) -> None:
    """Waits until the disk has the content of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Reading


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        ValueError: it is not JSON in UTF-8.
        TypeError: it is JSON and not an object.
    """
    try:
        found = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise TypeError(f"it holds a {type(found).__name__}, expected a JSON object")
    return found


def sha256_of(*paths: Path) -> str:
    """SHA-256 over the bytes of files in the order of their names, hexadecimal; of one file, as ``sha256sum`` prints.

    A folder stands for all files in it and below it.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted((file for path in paths for file in _files(path)), key=lambda file: file.name):
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def manifest_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> "bytes" and "sha256" of files in ``folder``, for the file that lists them.

    Raises:
        OSError: a file cannot be read.
    """
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in sorted(names)
    }


def bytes_sha256(content: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def json_sha256(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, written as JSON with sorted keys."""
    return bytes_sha256(json.dumps(values, sort_keys=True).encode())


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


# Locks


@contextlib.contextmanager
def locked(
    path: Path, *, wait_s: float = 0.0, waiting: Callable[[float], None] = lambda _seconds: None
) -> Iterator[None]:
    """Keeps ``path`` for this process alone; the kernel gives it back when the process ends, however it ends.

    The lock is on the file or folder itself, so nothing has to be put beside it or removed again.

    Args:
        path: a folder that exists, or a file, which is made with mode 0600 if there is none.
        wait_s: how long to wait for another process.
        waiting: told the seconds waited so far, every 5 s.

    Raises:
        BlockingIOError: another process keeps it, and did so for ``wait_s``.
        OSError: it cannot be opened; a link is not.
    """
    kind = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, kind | os.O_NOFOLLOW, PRIVATE)
    try:
        start_s = told_s = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now_s = time.monotonic()
                if now_s - start_s >= wait_s:
                    raise
                if now_s - told_s >= _WAITING_PERIOD_S:
                    told_s = now_s
                    waiting(now_s - start_s)
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)
