import pytest

from spatial_mllm_ros.models.checkpoints.identity import licence_of


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
