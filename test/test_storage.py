import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import spatial_mllm_ros
from spatial_mllm_ros.storage import (
    PRIVATE,
    bytes_sha256,
    is_temporary,
    json_object,
    json_sha256,
    leftovers,
    locked,
    manifest_of,
    recovered,
    remove_leftovers,
    sha256_of,
    user_cache,
    user_state,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def disk(monkeypatch):
    """What is done to the disk, in order: the inode of each flush, and "renamed"."""
    done = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def noted(change):
        def changed(source, target, **options):
            change(source, target, **options)
            done.append("renamed")

        return changed

    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append(os.fstat(descriptor).st_ino), fsync(descriptor)))
    monkeypatch.setattr(os, "rename", noted(rename))
    monkeypatch.setattr(os, "replace", noted(replace))
    return done


# Files


def test_a_file_is_written_and_an_earlier_one_replaced(tmp_path):
    path = tmp_path / "report.json"
    write_bytes(path, b"old\xff")
    assert path.read_bytes() == b"old\xff"
    write_text(path, "räum\n")
    assert path.read_bytes() == "räum\n".encode()
    write_json(path, {"b": 1, "a": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'
    assert names(tmp_path) == ["report.json"]


def test_files_are_readable_for_all_unless_they_are_private(tmp_path):
    write_text(tmp_path / "open", "x")
    write_text(tmp_path / "closed", "x", mode=PRIVATE)
    assert (mode_of(tmp_path / "open"), mode_of(tmp_path / "closed")) == (0o644, 0o600)


def test_a_file_is_on_the_disk_before_it_takes_its_name_and_the_name_after(tmp_path, disk):
    write_bytes(tmp_path / "file", b"content")
    assert disk == [(tmp_path / "file").stat().st_ino, "renamed", tmp_path.stat().st_ino]


def test_a_writer_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "picture.png"
    write_bytes(path, b"old")

    def write():
        with whole_file(path) as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert (names(tmp_path), path.read_bytes()) == (["picture.png"], b"old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "absent" / "file", b"")
    assert (names(tmp_path), path.read_bytes()) == (["picture.png"], b"old")


def test_the_path_to_write_to_is_in_the_same_folder_and_tells_the_format(tmp_path):
    with whole_file(tmp_path / "video.mp4") as part:
        assert (part.parent, part.suffix, part.name[0]) == (tmp_path, ".mp4", ".")


# Folders


def test_a_folder_appears_complete_with_everything_in_it(tmp_path, disk):
    with whole_folder(tmp_path / "a" / "room", mode=PRIVATE) as part:
        (part / "inner").mkdir()
        (part / "inner" / "file").write_text("content")
        assert is_temporary(part.name)
        assert not (tmp_path / "a" / "room").exists()
    room = tmp_path / "a" / "room"
    assert names(tmp_path / "a") == ["room"]
    assert (room / "inner" / "file").read_text() == "content"
    assert [mode_of(path) for path in (room, room / "inner", room / "inner" / "file")] == [0o700, 0o700, 0o600]
    inodes = [path.stat().st_ino for path in (room / "inner", room / "inner" / "file", room)]
    assert disk == [*inodes, "renamed", (tmp_path / "a").stat().st_ino]


def test_a_folder_that_all_may_read_can_be_entered(tmp_path):
    with whole_folder(tmp_path / "room") as part:
        (part / "file").write_text("content")
    assert (mode_of(tmp_path / "room"), mode_of(tmp_path / "room" / "file")) == (0o755, 0o644)


def test_an_earlier_folder_is_kept_unless_it_is_to_be_replaced(tmp_path):
    room = tmp_path / "room"
    with whole_folder(room) as part:
        (part / "old").write_text("")
    with pytest.raises(FileExistsError), whole_folder(room):
        pytest.fail("there was a folder to write to")
    with whole_folder(room, replace=True) as part:
        (part / "new").write_text("")
    assert (names(tmp_path), names(room)) == (["room"], ["new"])


def test_a_folder_made_meanwhile_is_not_replaced(tmp_path):
    def write():
        with whole_folder(tmp_path / "room"):
            (tmp_path / "room").mkdir()

    with pytest.raises(FileExistsError):
        write()
    assert names(tmp_path) == ["room"]


def test_a_writer_that_fails_leaves_the_earlier_folder_and_nothing_else(tmp_path):
    with whole_folder(tmp_path / "room") as part:
        (part / "old").write_text("")

    def write():
        with whole_folder(tmp_path / "room", replace=True) as part:
            (part / "half").write_text("")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert (names(tmp_path), names(tmp_path / "room")) == (["room"], ["old"])


def test_a_folder_that_cannot_take_its_place_leaves_the_earlier_one(tmp_path, monkeypatch):
    with whole_folder(tmp_path / "room") as part:
        (part / "old").write_text("")
    rename = os.rename

    def refuse(source, target, **options):
        if ".part-" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space left"), whole_folder(tmp_path / "room", replace=True):
        pass
    assert (names(tmp_path), names(tmp_path / "room")) == (["room"], ["old"])


def test_an_earlier_folder_is_found_where_a_process_ended_while_replacing_it(tmp_path):
    room, previous = tmp_path / "room", tmp_path / "room.previous"
    assert recovered(room) == room
    previous.mkdir()
    (previous / "old").write_text("")
    (tmp_path / "room.part-0123abcd").mkdir()
    (tmp_path / "room2.part-0123abcd").mkdir()
    (tmp_path / "room.part-mine").mkdir()
    assert recovered(room) == previous
    assert leftovers(room) == [tmp_path / "room.part-0123abcd", previous]
    remove_leftovers(room)
    assert (recovered(room), names(room)) == (room, ["old"])
    assert names(tmp_path) == ["room", "room.part-mine", "room2.part-0123abcd"]


# A process that is killed

_WRITER = """
import os, signal, sys
from pathlib import Path
from spatial_mllm_ros.storage import whole_folder, write_bytes

place, events = Path(sys.argv[1]), 0

def hook(event, arguments):
    global events
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"):
        events += 1
        if events == stop_before:
            print(f"reached {os.getpid()}", flush=True)
            while True:
                signal.pause()

def write_folder():
    with whole_folder(place, replace=True) as part:
        (part / "one").write_bytes(b"new" * 100_000)
        (part / "two").write_bytes(b"new" * 100_000)

write = {"file": lambda: write_bytes(place, b"new" * 100_000), "folder": write_folder}[sys.argv[2]]
for line in sys.stdin:
    stop_before = int(line)
    child = os.fork()
    if child == 0:
        sys.addaudithook(hook)
        write()
        print("finished", flush=True)
        os._exit(0)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_process_killed_at_any_moment_leaves_the_old_or_the_new_and_never_a_half(tmp_path, kind):
    place = tmp_path / "place"

    def found():
        here = recovered(place)
        return [p.read_bytes() for p in ([here / "one", here / "two"] if kind == "folder" else [here])]

    def write_old():
        if kind == "file":
            write_bytes(place, b"old")
            return
        remove_leftovers(place)
        with whole_folder(place, replace=True) as part:
            (part / "one").write_bytes(b"old")
            (part / "two").write_bytes(b"old")

    command = [sys.executable, "-c", _WRITER, str(place), kind]
    states = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        for moment in range(1, 1000):
            write_old()
            writer.stdin.write(f"{moment}\n")
            writer.stdin.flush()
            reached = writer.stdout.readline().split()
            if reached == ["finished"]:
                break
            os.kill(int(reached[1]), signal.SIGKILL)
            assert writer.stdout.readline().split() == ["ended", str(int(signal.SIGKILL))]
            states.append({b"old": "old", b"new" * 100_000: "new"}.get(found()[0], "half"))
            assert len(set(found())) == 1
        writer.stdin.close()
    turn = states.index("new")
    assert states == ["old"] * turn + ["new"] * (len(states) - turn)
    assert turn > 4


# Reading


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"\S"):
        json_object(content)


def test_json_that_is_not_an_object_is_a_type_error_that_names_what_it_is():
    with pytest.raises(TypeError, match="holds a list, expected a JSON object"):
        json_object(b"[1]")
    assert json_object('{"a": "ü"}'.encode()) == {"a": "ü"}


def test_the_hash_of_one_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"weights" * 1000)
    expected = hashlib.sha256(b"weights" * 1000).hexdigest()
    assert sha256_of(tmp_path / "a") == bytes_sha256(b"weights" * 1000) == expected
    assert manifest_of(tmp_path, ["a"]) == {"a": {"bytes": 7000, "sha256": expected}}


def test_the_hash_of_several_files_or_of_a_folder_goes_by_name_and_not_by_order(tmp_path):
    (tmp_path / "z").mkdir()
    for name in ("b", "z/a"):
        (tmp_path / name).write_text(name[-1])
    expected = hashlib.sha256(b"ab").hexdigest()
    assert sha256_of(tmp_path / "b", tmp_path / "z" / "a") == expected
    assert sha256_of(tmp_path / "z" / "a", tmp_path / "b") == expected
    assert sha256_of(tmp_path) == expected


def test_the_hash_of_values_does_not_depend_on_their_order():
    assert json_sha256({"b": 1, "a": [2]}) == json_sha256({"a": [2], "b": 1}) == bytes_sha256(b'{"a": [2], "b": 1}')


# Locks

_HOLDER = """
import sys
from pathlib import Path
from spatial_mllm_ros.storage import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path, kind):
    path = tmp_path if kind == "folder" else tmp_path / "lock"
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), locked(path):
            pytest.fail("two held it")
        holder.kill()
    with locked(path):
        assert names(tmp_path) == (["lock"] if kind == "file" else [])


def test_one_who_waits_for_a_lock_is_told_how_long_and_gives_up_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("spatial_mllm_ros.storage._LOCK_POLL_S", 0.001)
    monkeypatch.setattr("spatial_mllm_ros.storage._WAITING_PERIOD_S", 0.0)
    waited_s = []
    with (
        locked(tmp_path),
        pytest.raises(BlockingIOError),
        locked(tmp_path, wait_s=0.05, waiting=waited_s.append),
    ):
        pytest.fail("two held it")
    assert waited_s == sorted(waited_s)
    assert 0 < waited_s[0] < 0.05


def test_a_link_is_not_locked(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), locked(tmp_path / "link"):
        pytest.fail("it was followed")
    assert not (tmp_path / "elsewhere").exists()


# Folders of the user


def test_the_folders_of_a_user_follow_the_xdg_base_directory_specification(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert user_cache() == tmp_path / "cache" / "spatial_mllm_ros"
    assert user_state() == tmp_path / ".local" / "state" / "spatial_mllm_ros"


# The rest of the package


def test_no_other_module_renames_or_locks_and_only_the_answers_of_a_run_are_flushed_line_by_line():
    package = Path(spatial_mllm_ros.__file__).parent
    by_hand = re.compile(r"\.rename\(|os\.replace|mkstemp|\bfcntl\b|os\.fsync")
    found = {
        str(path.relative_to(package)): by_hand.findall(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
        if path.name != "storage.py" or path.parent != package
    }
    assert {name: calls for name, calls in found.items() if calls} == {"scoring/runner/results_file.py": ["os.fsync"]}


def test_a_linked_file_or_folder_is_written_where_the_link_leads_as_often_as_one_likes(tmp_path):
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    (tmp_path / "report.json").symlink_to(tmp_path / "disk" / "report.json")
    for number in range(3):
        with whole_folder(tmp_path / "run", replace=True) as part:
            (part / "number").write_text(str(number))
        write_text(tmp_path / "report.json", str(number))
        assert (tmp_path / "disk" / "run" / "number").read_text() == str(number)
        assert (tmp_path / "disk" / "report.json").read_text() == str(number)
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "report.json").is_symlink()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["report.json", "run"]


def test_a_folder_does_not_replace_a_file(tmp_path):
    (tmp_path / "run").write_text("a file")
    for _ in range(2):
        with pytest.raises(NotADirectoryError), whole_folder(tmp_path / "run", replace=True):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run").read_text() == "a file"


def test_a_link_that_a_writer_puts_into_a_folder_stays_a_link_and_its_target_keeps_its_mode(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("")
    secret.chmod(0o600)
    with whole_folder(tmp_path / "run") as part:
        (part / "link").symlink_to(secret)
        (part / "dangling").symlink_to(tmp_path / "nothing")
    assert (tmp_path / "run" / "link").is_symlink()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
