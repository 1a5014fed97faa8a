import os
import stat

import pytest

from spatial_mllm_ros.errors import StorageError
from spatial_mllm_ros.scene.saved import folder as saved_folder
from spatial_mllm_ros.scene.saved.folder import SavedFolder, checked_path, replace_folder

FORMAT = "test_format"


def fill(**contents):
    def write(folder):
        for name, content in contents.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        return {"version": 1, "code_version": "3.2.1"}

    return write


def opened(place, version=1, name=FORMAT):
    return SavedFolder(place, format_name=name, version=version)


# Where a folder may be, F19


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "room",
        "./room",
        "../room",
        "~/room",
        "~root/room",
        "//etc//../etc/passwd",
        "/",
        "/etc",
        "/etc/passwd",
        "/tmp",
        "{root}",
        "{root}/",
        "{root}/.",
        "{root}/..",
        "{root}/../room",
        "{root}/../../../../etc/cron.d",
        "{root}/a/../../room",
        "{root}/link",
        "{root}/link/room",
        "{root}/link/../../room",
        "{root}/folder_link/room",
        "{root}/loop/room",
        "{root}/file/room",
        "{root}/absent/room",
        "{root}/room.part-0123abcd",
        "{root}/room.previous",
        "{root}/room\0",
        "{root}/room\n",
        "{root}/\x1b[31mroom",
        "{root}/\udc80\ud800room",
        "{root}/" + "x" * 241,
        "{root}/" + "x/" * 2100,
        "{root}sibling/room",
        "file://{root}/room",
        "$HOME/room",
        "`id`",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_and_nothing_is_made(tmp_path, sent):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "rootsibling").mkdir()
    (tmp_path / "outside").mkdir()
    (root / "file").write_text("x")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "folder_link").symlink_to(tmp_path / "outside", target_is_directory=True)
    (root / "loop").symlink_to(root / "loop")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError) as caught:
        checked_path(sent.replace("{root}", str(root)), root)
    assert caught.value.cause == "path"
    assert sorted(tmp_path.rglob("*")) == before


def test_paths_below_the_root_are_taken_with_all_links_on_the_way_resolved(tmp_path):
    (tmp_path / "root" / "house").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "inner").symlink_to(tmp_path / "root" / "house")
    root = tmp_path / "short"
    for sent in ("root/house/room 2", "short/house/room 2", "root/inner/room 2", "root//house/./room 2/"):
        assert checked_path(f"{tmp_path}/{sent}", root) == tmp_path / "root" / "house" / "room 2"
    assert checked_path(f"{tmp_path}/räum-Ω", None) == tmp_path / "räum-Ω"


# Writing


def test_a_folder_appears_complete_with_size_and_hash_of_each_file_and_closed_to_others(tmp_path):
    replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"abc", image_7__jpg=b""))
    assert [p.name for p in tmp_path.iterdir()] == ["room"]
    saved = opened(tmp_path / "room")
    # as `printf abc | sha256sum` prints it
    assert saved.manifest["files"]["voxels.npy"] == {
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    manifest_bytes = (tmp_path / "room" / "manifest.json").stat().st_size
    assert (saved.read("voxels.npy"), saved.read("image_7.jpg"), saved.nbytes) == (b"abc", b"", 3 + manifest_bytes)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in [tmp_path / "room", *(tmp_path / "room").iterdir()]}
    assert modes == {0o700, 0o600}


def test_an_earlier_folder_is_replaced_whole(tmp_path):
    replace_folder(tmp_path / "room", FORMAT, fill(image_1__jpg=b"old", voxels__npy=b"old"))
    replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"new"))
    assert [p.name for p in tmp_path.iterdir()] == ["room"]
    assert sorted(p.name for p in (tmp_path / "room").iterdir()) == ["manifest.json", "voxels.npy"]
    assert opened(tmp_path / "room").read("voxels.npy") == b"new"


@pytest.mark.parametrize("what", ["file", "empty", "files", "other_format", "more_files", "subfolder", "broken"])
def test_what_is_not_a_saved_scene_is_never_replaced(tmp_path, what):
    place = tmp_path / "room"
    if what == "file":
        place.write_text("mine")
    elif what in ("empty", "files"):
        place.mkdir()
        if what == "files":
            (place / "notes.txt").write_text("mine")
    else:
        replace_folder(place, "another" if what == "other_format" else FORMAT, fill(voxels__npy=b"mine"))
        if what == "more_files":
            (place / "notes.txt").write_text("mine")
        elif what == "subfolder":
            (place / "image_3.jpg").mkdir()
        elif what == "broken":
            (place / "manifest.json").write_text("{")
    before = {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}
    with pytest.raises(StorageError, match="is not a saved scene") as caught:
        replace_folder(place, FORMAT, fill(voxels__npy=b"new"))
    assert caught.value.cause == "occupied"
    assert {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("suffix", [".part-0123abcd", ".previous"])
def test_a_folder_of_somebody_else_with_the_name_of_a_remnant_is_left_alone(tmp_path, suffix):
    other = tmp_path / f"room{suffix}"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(StorageError, match=rf"room\{suffix} is in the way"):
        replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"new"))
    assert (other / "thesis.tex").read_text() == "mine"
    assert not (tmp_path / "room").exists()


def test_two_that_save_in_one_place_do_not_meet(tmp_path):
    def write(folder):
        with pytest.raises(StorageError, match="Another process is saving") as caught:
            replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"second"))
        assert caught.value.cause == "busy"
        return fill(voxels__npy=b"first")(folder)

    replace_folder(tmp_path / "room", FORMAT, write)
    assert opened(tmp_path / "room").read("voxels.npy") == b"first"
    replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"third"))  # the lock has been given back


def test_a_failure_while_writing_leaves_the_earlier_folder_and_nothing_else(tmp_path):
    replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"old"))

    def write(folder):
        (folder / "voxels.npy").write_bytes(b"new")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replace_folder(tmp_path / "room", FORMAT, write)
    assert [p.name for p in tmp_path.iterdir()] == ["room"]
    assert opened(tmp_path / "room").read("voxels.npy") == b"old"


def test_a_place_that_may_not_be_written_is_a_sentence(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)  # tests may run as root, whom no mode stops
    with pytest.raises(StorageError, match=r"Permission denied.*Let this user write to") as caught:
        replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"new"))
    assert caught.value.cause == "permission"


# Reading


@pytest.fixture
def room(tmp_path):
    replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"abcdef", image_7__jpg=b"picture"))
    return tmp_path / "room"


def read_all(place):
    saved = opened(place)
    return [saved.read(name) for name in saved.manifest["files"]]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def link(path):
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["voxels.npy", "image_7.jpg"])
@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (os.unlink, "missing"),
        (cut, "truncated"),
        (lengthen, "truncated"),
        (flip, "tampered"),
        (link, "foreign"),
        (pipe, "foreign"),
    ],
    ids=["missing", "cut", "longer", "flipped", "link", "pipe"],
)
def test_a_damaged_file_is_refused_by_its_name(room, name, damage, cause):
    damage(room / name)
    with pytest.raises(StorageError, match=name.replace(".", r"\.")) as caught:
        read_all(room)
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (os.unlink, "missing"),
        (cut, "truncated"),
        (flip, "tampered truncated"),
        (link, "foreign"),
        (lambda p: p.write_bytes(b""), "truncated"),
        (lambda p: p.write_bytes(b"[1]"), "foreign"),
        (lambda p: p.write_bytes(b"{}"), "foreign"),
        (lambda p: p.write_bytes(b"[" * 100_000), "truncated"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "truncated"),
        (lambda p: p.write_text(p.read_text().replace("test_format", "other")), "foreign"),
        (lambda p: p.write_text(p.read_text().replace('"version": 1', '"version": 2')), "newer"),
        (lambda p: p.write_text(p.read_text().replace('"version": 1', '"version": 0')), "newer"),
        (lambda p: p.write_text(p.read_text().replace("image_7.jpg", "image_8.jpg")), "tampered"),
        (lambda p: p.write_text(p.read_text().replace('"bytes": 6', '"bytes": 5')), "tampered"),
    ],
    ids=[
        *("missing", "cut", "flipped", "link", "empty", "list", "no_format", "deep", "no_text", "other", "newer"),
        *("zeroth", "renamed", "resized"),
    ],
)
def test_a_damaged_manifest_is_refused(room, damage, cause):
    damage(room / "manifest.json")
    with pytest.raises(StorageError, match=r"manifest\.json") as caught:
        read_all(room)
    assert caught.value.cause in cause.split()


def test_one_wrong_bit_in_any_byte_of_the_manifest_is_noticed(room):
    whole = (room / "manifest.json").read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x01
        (room / "manifest.json").write_bytes(bytes(changed))
        with pytest.raises(StorageError):
            read_all(room)


def test_a_newer_version_names_the_release_that_wrote_it(room):
    path = room / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StorageError, match=r"has version 2; this program reads up to 1\. .*3\.2\.1"):
        opened(room)


def test_a_file_that_does_not_belong_is_refused_by_name(room):
    (room / "setup.py").write_text("import os")
    with pytest.raises(StorageError, match=r"'setup\.py' is in .*move what is not of it away") as caught:
        opened(room)
    assert caught.value.cause == "foreign"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "image_7.jpg/../../outside", "manifest.json.part", ""])
def test_a_manifest_cannot_list_files_outside_of_its_folder(tmp_path, monkeypatch, name):
    (tmp_path / "outside").write_text("secret")
    entry = {"bytes": 6, "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}

    sealed = saved_folder._sealed
    monkeypatch.setattr(
        saved_folder, "_sealed", lambda manifest: sealed({**manifest, "files": {**manifest["files"], name: entry}})
    )
    replace_folder(tmp_path / "room", FORMAT, fill(voxels__npy=b"abc"))
    with pytest.raises(StorageError, match="which no saved scene has") as caught:
        opened(tmp_path / "room")
    assert caught.value.cause == "tampered"


def test_a_folder_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(StorageError, match="There is no folder") as caught:
        opened(tmp_path / "room")
    assert caught.value.cause == "missing"
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="There is no folder"):
        opened(tmp_path / "file")


def test_a_folder_that_was_being_replaced_when_the_process_ended_is_read_under_its_other_name(room):
    room.rename(room.with_name("room.previous"))
    assert read_all(room) == [b"picture", b"abcdef"]
    replace_folder(room, FORMAT, fill(voxels__npy=b"new"))
    assert [p.name for p in room.parent.iterdir()] == ["room"]
