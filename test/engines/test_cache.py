"""Drills F11 (an engine that is not what it should be) and F12 (two processes build the same one)."""

import json
import logging
import multiprocessing
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from spatial_mllm_ros.engines import cache as cache_module
from spatial_mllm_ros.engines.cache import ENGINE_NAME, MANIFEST_NAME, EngineCache, EngineKey
from spatial_mllm_ros.errors import EngineError

KEY = EngineKey(
    onnx_sha256="ab" * 32,
    runtime="tensorrt 10.3.0.26",
    driver="540.4.0",
    gpu="NVIDIA Orin",
    sm="8.7",
    platform="Linux-aarch64",
    profile="geometry-518x392-f2-8-bf16",
    precision="bf16",
    builder_flags="strongly-typed",
    code_version="0.1.0",
)
CONTENT = b"\x00engine\xff" * 1000


def build(path, tell):
    path.write_bytes(CONTENT)


def must_not_build(path, tell):
    pytest.fail("the cached engine was not used")


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def built(cache):
    """The folder of an engine in the cache."""
    assert cache.get_or_build(KEY, build) == (CONTENT, True)
    return cache.folder / KEY.folder_name


def test_an_engine_is_built_once_and_then_taken_from_the_cache(cache, built):
    assert cache.open(KEY) == CONTENT
    assert cache.get_or_build(KEY, must_not_build) == (CONTENT, False)
    assert json.loads((built / MANIFEST_NAME).read_text())["key"] == asdict(KEY)


def test_nobody_else_can_read_or_write_the_cache(cache, built):
    for path in (cache.folder, built):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((built / MANIFEST_NAME).stat().st_mode) == 0o600


def test_the_cache_is_in_the_users_cache_folder_and_never_in_a_shared_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert EngineCache().folder == tmp_path / "xdg" / "spatial_mllm_ros" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert EngineCache().folder == tmp_path / "home" / ".cache" / "spatial_mllm_ros" / "engines"


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_folder_that_others_can_enter_is_refused(tmp_path, mode):
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines").chmod(mode)
    with pytest.raises(EngineError, match="chmod 700") as caught:
        EngineCache(tmp_path / "engines")
    assert caught.value.cause == "unsafe"


def test_a_folder_in_a_shared_one_is_refused(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    with pytest.raises(EngineError, match="which others can write to") as caught:
        EngineCache(tmp_path / "shared" / "engines")
    assert caught.value.cause == "unsafe"


def test_a_link_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="not a folder of its own"):
        EngineCache(tmp_path / "engines")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    (tmp_path / "engines").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(EngineError, match="must belong to this user"):
        EngineCache(tmp_path / "engines")


# -- F11 ---------------------------------------------------------------------------------------------------------------


def cut(folder: Path):
    (folder / ENGINE_NAME).write_bytes(CONTENT[:-1])


def empty(folder: Path):
    (folder / ENGINE_NAME).write_bytes(b"")


def flip(position: int):
    def spoil(folder: Path):
        content = bytearray(CONTENT)
        content[position] ^= 0x10
        (folder / ENGINE_NAME).write_bytes(content)

    return spoil


def remove_engine(folder: Path):
    (folder / ENGINE_NAME).unlink()


def remove_manifest(folder: Path):
    (folder / MANIFEST_NAME).unlink()


def cut_manifest(folder: Path):
    (folder / MANIFEST_NAME).write_text((folder / MANIFEST_NAME).read_text()[:100])


def list_another_file(folder: Path):
    content = json.loads((folder / MANIFEST_NAME).read_text())
    content["files"] = {"../other.engine": content["files"][ENGINE_NAME]}
    (folder / MANIFEST_NAME).write_text(json.dumps(content))


def link_engine(folder: Path):
    (folder / ENGINE_NAME).rename(folder / "real")
    (folder / ENGINE_NAME).symlink_to("real")


def restate(**changes: str):
    def spoil(folder: Path):
        content = json.loads((folder / MANIFEST_NAME).read_text())
        content["key"] |= changes
        (folder / MANIFEST_NAME).write_text(json.dumps(content))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "cause", "sentence"),
    [
        (cut, "truncated", "has 7999 bytes, its manifest says 8000"),
        (empty, "truncated", "has 0 bytes"),
        (flip(0), "tampered", "SHA-256 of .* is not the one in its manifest"),
        (flip(4321), "tampered", "SHA-256"),
        (flip(7999), "tampered", "SHA-256"),
        (remove_engine, "missing", "cannot be opened"),
        (remove_manifest, "missing", "There is no .*engine.json"),
        (cut_manifest, "truncated", "cannot be read as JSON"),
        (list_another_file, "truncated", "does not list model.engine"),
        (link_engine, "missing", "cannot be opened"),
        (restate(gpu="NVIDIA Thor", sm="11.0"), "foreign", "gpu 'NVIDIA Thor', here 'NVIDIA Orin'; sm '11.0'"),
        (restate(platform="Linux-x86_64"), "foreign", "platform"),
        (restate(runtime="tensorrt 10.7.0.1"), "stale", "runtime 'tensorrt 10.7.0.1', here 'tensorrt 10.3.0.26'"),
        (restate(driver="999"), "stale", "driver"),
        (restate(onnx_sha256="cd" * 32), "stale", "onnx_sha256"),
        (restate(precision="fp32"), "stale", "precision"),
    ],
)
def test_an_engine_that_is_not_what_it_should_be_is_refused_by_name_and_built_anew(
    cache, built, spoil, cause, sentence, caplog
):
    spoil(built)
    with pytest.raises(EngineError, match=sentence) as caught:
        cache.open(KEY)
    assert caught.value.cause == cause
    with caplog.at_level(logging.INFO):
        assert cache.get_or_build(KEY, build) == (CONTENT, True)
    assert "Building the engine geometry-518x392-f2-8-bf16-" in caplog.text
    assert cache.open(KEY) == CONTENT


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"gpu": "NVIDIA H200", "sm": "9.0"}, "foreign"),
        ({"runtime": "tensorrt 11.4.1.2"}, "stale"),
        ({"onnx_sha256": "00" * 32}, "stale"),
        ({"code_version": "0.2.0"}, "stale"),
        ({"profile": "geometry-518x294-f2-8-bf16"}, "missing"),
    ],
)
def test_an_engine_for_something_else_is_never_taken_and_what_differs_is_said(cache, built, change, cause):
    with pytest.raises(EngineError) as caught:
        cache.open(replace(KEY, **change))
    assert caught.value.cause == cause
    if cause != "missing":
        assert all(f"{field} " in str(caught.value) for field in change)


def test_every_part_of_the_key_counts():
    changed = [replace(KEY, **{field: "x"}).digest for field in asdict(KEY)]
    assert len({KEY.digest, *changed}) == len(changed) + 1


# -- builds ------------------------------------------------------------------------------------------------------------


def test_a_build_that_fails_leaves_nothing_and_the_old_engine_stays_refused(cache):
    def fail(path, tell):
        path.write_bytes(b"half")
        raise EngineError("build", "The builder gave up.")

    with pytest.raises(EngineError, match="gave up"):
        cache.get_or_build(KEY, fail)
    assert [path.name for path in cache.folder.iterdir()] == [f"{KEY.folder_name}.lock"]


def test_a_full_disk_during_a_build_is_an_error_that_says_so(cache):
    def full(path, tell):
        raise OSError(28, "No space left on device")

    with pytest.raises(EngineError, match="No space left on device"):
        cache.get_or_build(KEY, full)
    assert cache.engines() == []


def test_a_long_build_tells_regularly_what_it_is_doing(cache, caplog, monkeypatch):
    monkeypatch.setattr(cache_module, "PROGRESS_PERIOD_S", 0.01)
    waiting = logging.Handler()
    seen = multiprocessing.Event()
    waiting.emit = lambda record: seen.set() if "timing layer 3" in record.getMessage() else None
    logging.getLogger(cache_module.__name__).addHandler(waiting)

    def slow(path, tell):
        tell("timing layer 3")
        assert seen.wait(20)
        build(path, tell)

    try:
        with caplog.at_level(logging.INFO):
            cache.get_or_build(KEY, slow)
    finally:
        logging.getLogger(cache_module.__name__).removeHandler(waiting)


def test_the_progress_comes_at_least_every_five_seconds():
    assert cache_module.PROGRESS_PERIOD_S <= 5.0


def _build_in_a_process(folder, ready, go, results, builds):
    def slow(path, tell):
        with builds.get_lock():
            builds.value += 1
        assert go.wait(30)
        path.write_bytes(CONTENT)

    ready.release()
    engine, built_now = EngineCache(folder).get_or_build(KEY, slow)
    results.put((engine == CONTENT, built_now))


def test_of_two_processes_one_builds_and_the_other_takes_what_it_built(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, go, results = context.Semaphore(0), context.Event(), context.Queue()
    builds = context.Value("i", 0)
    arguments = (tmp_path / "engines", ready, go, results, builds)
    processes = [context.Process(target=_build_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        assert ready.acquire(timeout=30)
    go.set()
    found = sorted(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join(30)
    assert found == [(True, False), (True, True)]
    assert builds.value == 1


def test_a_builder_that_dies_does_not_block_the_next_one(tmp_path):
    context = multiprocessing.get_context("fork")

    def die(folder):
        EngineCache(folder).get_or_build(KEY, lambda path, tell: os._exit(9))

    process = context.Process(target=die, args=(tmp_path / "engines",))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    cache = EngineCache(tmp_path / "engines")
    assert cache.get_or_build(KEY, build, wait_s=0.0) == (CONTENT, True)
    assert not list(cache.folder.glob("*.part-*"))


def test_waiting_for_another_process_has_an_end(cache):
    with (
        cache.locked(KEY.folder_name),
        pytest.raises(EngineError, match="Another process has held"),
        cache.locked(KEY.folder_name, wait_s=0.0),
    ):
        pass


# -- list, verify, prune -----------------------------------------------------------------------------------------------


def test_listing_names_what_is_wrong_and_hashes_only_when_asked_to(cache, built):
    other = replace(KEY, gpu="NVIDIA Thor")
    cache.get_or_build(other, build)
    flip(77)(built)
    assert [engine.problem for engine in cache.engines()] == ["", ""]
    problems = {engine.key["gpu"]: engine.problem for engine in cache.engines(verify=True)}
    assert problems["NVIDIA Thor"] == ""
    assert problems["NVIDIA Orin"].startswith("tampered: ")
    assert all(engine.size_bytes > len(CONTENT) for engine in cache.engines())


def test_an_engine_under_the_name_of_another_is_noticed(cache, built):
    built.rename(built.with_name("geometry-518x392-f2-8-bf16-0123456789abcdef"))
    assert "not the name of the engine in its manifest" in cache.engines()[0].problem


def test_pruning_removes_what_is_not_wanted_and_nothing_else(cache, built):
    other = replace(KEY, gpu="NVIDIA Thor")
    cache.get_or_build(other, build)

    def wanted(engine):
        return engine.key.get("gpu") == "NVIDIA Thor"

    assert [engine.folder for engine in cache.prune(keep=wanted, dry_run=True)] == [built]
    assert built.exists()
    cache.prune(keep=wanted)
    assert [engine.key["gpu"] for engine in cache.engines()] == ["NVIDIA Thor"]
