"""The file of a run's answers: append-only, each answer is flushed to the disk.

A run that is killed loses at most the answer that it was writing; when started again it continues with the next
question. Each process writes a file of its own and reads those of all processes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.storage import locked

_PATTERN = "answers*.jsonl"


@dataclass(frozen=True)
class StoredAnswer:
    """One finished question.

    Attributes:
        frames: positions in the clip of the frames that the model saw.
        seconds: of work, its share of what was done for the whole clip included.
    """

    id: str
    prediction: str
    prompt: str
    frames: tuple[int, ...]
    seconds: float


class ResultsFile:
    """The answers of one process, open for appending; a context manager.

    Args:
        folder: of the run; made if need be.
        rank: of this process among the ``world`` that share the run.
        settings: what the answers depend on; a folder with answers of other settings is refused.

    Raises:
        ConfigurationError: another process writes this file, or the folder's answers were made with other settings.
        SourceError: the file cannot be written.
    """

    def __init__(self, folder: Path, *, rank: int, settings: Mapping[str, Any]) -> None:
        name = "answers.jsonl" if rank == 0 else f"answers.{rank}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = (folder / name).open("a+b")
        except OSError as error:
            raise SourceError(f"The answers cannot be written to {folder / name}: {error.strerror}.") from error
        self._lock = contextlib.ExitStack()
        try:
            self._continue(folder, name, dict(settings))
        except BaseException:
            self.close()
            raise

    def _continue(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        try:
            self._lock.enter_context(locked(folder / name))
        except BlockingIOError as error:
            raise ConfigurationError(f"Another process is writing {folder / name}; let it end, or stop it.") from error
        self._drop_torn_line()
        for path in sorted(folder.glob(_PATTERN)):
            _check_settings(path, settings)
        if self._file.seek(0, os.SEEK_END) == 0:
            self._append({"settings": settings})

    def append(self, answer: StoredAnswer) -> None:
        """Writes one answer; it is on the disk when this returns."""
        self._append(asdict(answer))

    def _append(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values, ensure_ascii=False, sort_keys=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _drop_torn_line(self) -> None:
        """Removes what follows the last line end: the process died while it wrote it."""
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        if whole < end:
            self._file.truncate(whole)

    def close(self) -> None:
        """Closes the file and releases its lock."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_answers(folder: Path) -> dict[str, StoredAnswer]:
    """All finished questions of all processes by id; of an id that was answered twice the first one in file order."""
    found: dict[str, StoredAnswer] = {}
    for path in sorted(folder.glob(_PATTERN)):
        for values in _lines(path):
            if "id" in values:
                answer = StoredAnswer(**{**values, "frames": tuple(values["frames"])})
                found.setdefault(answer.id, answer)
    return found


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    stored = next((line["settings"] for line in _lines(path) if "settings" in line), None)
    if stored is None:
        return
    wanted = json.loads(json.dumps(settings))
    differing = sorted(name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name))
    if differing:
        listed = "; ".join(f"{name}: {stored.get(name)!r} then, {wanted.get(name)!r} now" for name in differing)
        raise ConfigurationError(
            f"The answers in {path} were made with other settings ({listed}); give another --out folder, or the same "
            "settings to go on."
        )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    *whole, _being_written = path.read_bytes().split(b"\n")
    for number, line in enumerate(whole, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise SourceError(f"{path}, line {number} is damaged ({error}); take the line out to go on.") from error
