import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.verification.checks import Check, compare
from spatial_mllm_ros.verification.verify_reference import all_families, run, table, verify_reference


def good(root: Path) -> Iterator[Check]:
    yield compare("good/one", "tokens", [1.0, 2.0], [1.0, 2.0], tolerance=0)


def bad(root: Path) -> Iterator[Check]:
    yield compare("bad/one", "tokens", [1.0, 2.5], [1.0, 2.0], tolerance=1e-5)


def raising(root: Path) -> Iterator[Check]:
    yield compare("raising/one", "tokens", [1], [1], tolerance=0)
    raise KeyError("pose_enc")


def absent(root: Path) -> Iterator[Check]:
    yield from ()


def test_all_within_tolerance_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, families={"good": good, "absent": absent}) == 0
    assert "1 of 1 checks passed" in capsys.readouterr().out


def test_a_failed_check_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, families={"good": good, "bad": bad}) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("bad/one"))
    assert line.split() == ["bad/one", "tokens", "5.00e-01", "2.24e-01", "max_abs", "1e-05", "NO"]


def test_no_case_ends_with_2_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, families={"absent": absent}) == 2
    assert "No reference case was found" in capsys.readouterr().out
    assert run(tmp_path / "nowhere") == 2


def test_an_exception_is_a_failed_row_that_names_it_and_the_rest_still_runs(tmp_path: Path) -> None:
    rows = verify_reference(tmp_path, {"raising": raising, "good": good})
    assert [row.passed for row in rows] == [True, False, True]
    assert rows[1].case == "raising/one"
    assert "KeyError: 'pose_enc'" in rows[1].quantity
    assert run(tmp_path, families={"raising": raising}) == 1


def test_columns_are_aligned() -> None:
    rows = verify_reference(Path(), {"good": good, "bad": bad, "raising": raising})
    lines = table(rows).splitlines()
    start = lines[0].index("tolerance")
    assert all(line[start - 1] == " " and line[start] != " " for line in lines)


def test_the_report_is_valid_json_with_versions(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("old")
    assert run(tmp_path, report, families={"good": good, "raising": raising}) == 1
    content = json.loads(report.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["passed"] is False
    assert set(content["versions"]) >= {"torch", "transformers", "numpy"}
    assert [row["passed"] for row in content["checks"]] == [True, True, False]
    assert content["checks"][-1]["max_abs"] is None
    assert list(tmp_path.iterdir()) == [report]


def test_a_report_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    def never(root: Path) -> Iterator[Check]:
        raise AssertionError("ran")
        yield

    with pytest.raises(ConfigurationError, match="its folder does not exist"):
        run(tmp_path, tmp_path / "nowhere" / "report.json", families={"never": never})


def test_every_family_skips_a_folder_without_its_files(tmp_path: Path) -> None:
    assert list(all_families()) == ["vggt", "spatial_mllm", "preprocess", "sampling", "manifests", "metrics"]
    assert verify_reference(tmp_path) == []


def test_importing_the_command_does_not_import_torch() -> None:
    code = "import sys, spatial_mllm_ros.verification.verify_reference; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=False).returncode
        == 0
    )
