"""The cache of built engines: only one whose manifest, size and hash are right is given to the deserialiser."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from spatial_mllm_ros.engines.files import private_folder, read_manifest, replaced_folder
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.storage import (
    bytes_sha256,
    is_temporary,
    json_sha256,
    locked,
    manifest_of,
    remove_leftovers,
    user_cache,
)

ENGINE_NAME = "model.engine"
MANIFEST_NAME = "engine.json"
TIMING_CACHE_NAME = "timing.cache"
PROGRESS_PERIOD_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on. Two engines that differ in one field are not interchangeable.

    Attributes:
        onnx_sha256: of graph and weights.
        runtime: e.g. "tensorrt 10.3.0.26", with all parts of the version.
        driver: of the GPU.
        gpu, sm: name and compute capability, e.g. "NVIDIA Orin" and "8.7".
        platform: operating system and architecture.
        profile, precision: name of the profile, and its precision.
        builder_flags: what the builder was told.
        code_version: of the exporter and builder.
    """

    onnx_sha256: str
    runtime: str
    driver: str
    gpu: str
    sm: str
    platform: str
    profile: str
    precision: str
    builder_flags: str
    code_version: str

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, hexadecimal."""
        return json_sha256(asdict(self))

    @property
    def folder_name(self) -> str:
        """The profile's name, for people, with the digest, which makes it unique."""
        return f"{self.profile}-{self.digest[:16]}"


@dataclass(frozen=True, eq=False)
class CachedEngine:
    """An engine in the cache; ``problem`` is the reason for which it would be refused, "" when there is none."""

    folder: Path
    key: Mapping[str, str]
    size_bytes: int
    problem: str


Build = Callable[[Path, Callable[[str], None]], None]


class EngineCache:
    """A private folder of engines.

    Args:
        folder: mode 0700, of this user; made when it is not there. None for the user's cache folder. Never a shared
            temporary one: deserialising an engine runs its code.

    Raises:
        EngineError: ``unsafe``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = private_folder(user_cache() / "engines" if folder is None else folder)

    @property
    def timing_cache(self) -> Path:
        """Tactic timings that the builds share; used under ``locked("timing")``."""
        return self.folder / TIMING_CACHE_NAME

    def open(self, key: EngineKey) -> bytes:
        """The engine for ``key``, checked: manifest first, then size, then hash, and only what was hashed is returned.

        Raises:
            EngineError: ``missing``, ``truncated``, ``tampered``, ``stale`` (same GPU, other versions or model),
                ``foreign`` (other GPU or platform), ``unsafe``.
        """
        folder = self.folder / key.folder_name
        if not folder.is_dir():
            self._explain_absence(key)
        _check_folder(folder, asdict(key))
        return _read_checked(folder)

    def get_or_build(self, key: EngineKey, build: Build, *, wait_s: float = 7200.0) -> tuple[bytes, bool]:
        """The engine for ``key`` and whether it was built now.

        Where several processes want the same engine, one builds it and the others wait for it. An engine that is
        refused is built again. The log reports every 5 s that a build or a wait goes on.

        Args:
            build: writes the engine to the path given, and calls the function given with what it is doing.
            wait_s: longest wait for another process.

        Raises:
            EngineError: of ``build``, or ``build``: the other process takes too long, or the disk is full.
        """
        with contextlib.suppress(EngineError):
            return self.open(key), False
        with self.locked(key.folder_name, wait_s=wait_s):
            try:
                return self.open(key), False  # built by the process that was waited for
            except EngineError as error:
                level = logging.INFO if error.cause == "missing" else logging.WARNING
                _log.log(level, "Building the engine %s: %s", key.folder_name, error)
            remove_leftovers(self.folder / key.folder_name)
            with replaced_folder(self.folder / key.folder_name) as part, _told_regularly(key.folder_name) as tell:
                build(part / ENGINE_NAME, tell)
                if not (part / ENGINE_NAME).is_file():
                    raise EngineError("build", f"The build of {key.folder_name} ended without an engine.")
                content = {"key": asdict(key), "files": manifest_of(part, [ENGINE_NAME])}
                (part / MANIFEST_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            return self.open(key), True

    @contextlib.contextmanager
    def locked(self, name: str, *, wait_s: float = 7200.0) -> Iterator[None]:
        """Holds the lock ``name`` between processes; the kernel releases it when the process ends.

        Raises:
            EngineError: ``build``: another process has held it for ``wait_s``.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(
                    locked(
                        self.folder / f"{name}.lock",
                        wait_s=wait_s,
                        waiting=lambda s: _log.info("Waiting for another process with %s, %.0f s so far.", name, s),
                    )
                )
            except BlockingIOError:
                raise EngineError(
                    "build",
                    f"Another process has held {name} in {self.folder} for {wait_s:.0f} s; end it if it hangs.",
                ) from None
            yield

    def engines(self, *, verify: bool = False) -> list[CachedEngine]:
        """All engines, by name; with ``verify`` their hashes are computed as well."""
        found = []
        for folder in sorted(path for path in self.folder.iterdir() if path.is_dir() and not is_temporary(path.name)):
            problem, key = "", {}
            try:
                key = _check_folder(folder, None)
                if verify:
                    _read_checked(folder)
            except EngineError as error:
                problem = f"{error.cause}: {error}"
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            found.append(CachedEngine(folder, key, size, problem))
        return found

    def prune(self, *, keep: Callable[[CachedEngine], bool], dry_run: bool = False) -> list[CachedEngine]:
        """Removes the engines that ``keep`` does not want, and what an interrupted build left; returns the engines."""
        removed = [engine for engine in self.engines() if not keep(engine)]
        if dry_run:
            return removed
        for engine in removed:
            with self.locked(engine.folder.name):
                shutil.rmtree(engine.folder, ignore_errors=True)
        for name in {path.stem for path in self.folder.iterdir() if is_temporary(path.name)}:
            with self.locked(name):
                remove_leftovers(self.folder / name)
        return removed

    def _explain_absence(self, key: EngineKey) -> NoReturn:
        wanted = asdict(key)
        for engine in self.engines():
            if engine.key and engine.key["profile"] == key.profile:
                _refuse_other(engine.folder.name, engine.key, wanted)
        raise EngineError("missing", f"There is no engine {key.folder_name} in {self.folder}; build it.")


def _check_folder(folder: Path, wanted: Mapping[str, str] | None) -> dict[str, str]:
    """Reads the manifest and compares its key with ``wanted`` (any, if None) and with the folder's name."""
    content = read_manifest(folder / MANIFEST_NAME)
    key = content.get("key")
    names = {field.name for field in fields(EngineKey)}
    if not isinstance(key, dict) or set(key) != names or not isinstance(content.get("files"), dict):
        raise EngineError("truncated", f"{folder / MANIFEST_NAME} is not the manifest of an engine; build it again.")
    key = {str(name): str(value) for name, value in key.items()}
    if wanted is not None and key != dict(wanted):
        _refuse_other(folder.name, key, wanted)
    if wanted is None and EngineKey(**key).folder_name != folder.name:
        raise EngineError("tampered", f"{folder.name} is not the name of the engine in its manifest; build it again.")
    if set(content["files"]) != {ENGINE_NAME}:
        raise EngineError("truncated", f"{folder / MANIFEST_NAME} does not list {ENGINE_NAME}; build it again.")
    return key


def _refuse_other(name: str, theirs: Mapping[str, str], wanted: Mapping[str, str]) -> NoReturn:
    differs = [field for field in wanted if theirs[field] != wanted[field]]
    listed = "; ".join(f"{field} {theirs[field]!r}, here {wanted[field]!r}" for field in differs)
    raise EngineError(
        "foreign" if set(differs) & {"gpu", "sm", "platform"} else "stale",
        f"The engine {name} was made for something else ({listed}). It is refused; build it again.",
    )


def _read_checked(folder: Path) -> bytes:
    """The engine's bytes, read once and hashed in memory, because the file may be exchanged after a check."""
    stated: dict[str, Any] = read_manifest(folder / MANIFEST_NAME)["files"][ENGINE_NAME]
    path = folder / ENGINE_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineError("missing", f"{path} cannot be opened ({error}); build it again.") from error
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read()
    if len(content) != stated.get("bytes"):
        raise EngineError(
            "truncated", f"{path} has {len(content)} bytes, its manifest says {stated.get('bytes')}; build it again."
        )
    if bytes_sha256(content) != stated.get("sha256"):
        raise EngineError(
            "tampered", f"The SHA-256 of {path} is not the one in its manifest; it is refused, build it again."
        )
    return content


@contextlib.contextmanager
def _told_regularly(name: str) -> Iterator[Callable[[str], None]]:
    """Logs what the build is doing every 5 s, from a thread of its own: a builder may be silent for minutes."""
    doing = ["starting"]
    ended = threading.Event()
    start_s = time.monotonic()

    def tell() -> None:
        while not ended.wait(PROGRESS_PERIOD_S):
            _log.info("Building %s: %.0f s, %s.", name, time.monotonic() - start_s, doing[0])

    def note(what: str) -> None:
        doing[0] = what

    thread = threading.Thread(target=tell, name="engine-progress", daemon=True)
    thread.start()
    try:
        yield note
    finally:
        ended.set()
        thread.join(timeout=PROGRESS_PERIOD_S)
