import hashlib

import pytest

from spatial_mllm_ros.models.checkpoints.identity import licence_of, weights_sha256


def test_the_hash_of_one_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"weights" * 1000)
    assert weights_sha256([tmp_path / "a"]) == hashlib.sha256(b"weights" * 1000).hexdigest()


def test_the_hash_of_several_files_goes_by_name_not_by_order(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
    files = [tmp_path / "b", tmp_path / "a"]
    assert weights_sha256(files) == weights_sha256(files[::-1]) == hashlib.sha256(b"ab").hexdigest()


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({"license": "mit"}, {"README.md": "---\nlicense: apache-2.0\n---\n"}, "mit"),
        ({}, {"README.md": "---\ntags: [x]\nlicense: apache-2.0\n---\ntext", "LICENSE": "Other\n"}, "apache-2.0"),
        ({}, {"README.md": "---\nlicense: other\nlicense_name: qwen-research # x\n---\n"}, "qwen-research"),
        (
            {},
            {"README.md": "license: not in the front matter", "LICENSE": "\n  VGGT License v1\nmore"},
            "VGGT License v1",
        ),
        ({"license": 5}, {"LICENSE": "\n\n"}, "unknown"),
        ({}, {}, "unknown"),
    ],
)
def test_the_licence_is_what_the_folder_says(tmp_path, config, files, expected):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert licence_of(tmp_path, config) == expected
