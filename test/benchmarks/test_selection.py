import numpy as np

from spatial_mllm_ros.benchmarks.selection import coverage_rows, incremental_rows, offline_rows
from spatial_mllm_ros.recordings.rgbd_folder import RgbdFolder
from spatial_mllm_ros.verification import sampling


def by_name(rows):
    assert all(row.to_json().keys() == {"name", "value", "unit", "aim", "detail"} for row in rows)
    return {row.name: row.value for row in rows}


def test_the_incremental_rows_name_cost_and_bytes_per_count():
    rows = by_name(incremental_rows((70, 140), measured_frames=10))
    assert rows.keys() == {
        "selection.frame_ms_after_70",
        "selection.index_bytes_after_70",
        "selection.frame_ms_after_140",
        "selection.index_bytes_after_140",
        "selection.frame_ms_ratio",
        "selection.index_bytes_ratio",
    }
    assert all(np.isfinite(value) and value > 0 for value in rows.values())
    assert rows["selection.index_bytes_ratio"] < 1.5


def test_the_offline_method_selects_what_the_plain_one_selects():
    rows = by_name(offline_rows(frames=10, height=28, width=37, k=4, repeats=1))
    assert rows["selection.offline_same_frames"] == 1


def test_the_bounded_selection_covers_a_real_sequence_nearly_like_the_offline_one(data_dir):
    rows = by_name(coverage_rows(RgbdFolder(data_dir / "redkitchen"), name="redkitchen"))
    assert rows["selection.redkitchen.coverage_over_offline_greedy"] >= 0.98
    assert rows["selection.redkitchen.coverage_over_uniform"] > 1.05


def test_all_reference_checks_pass(golden_dir):
    rows = list(sampling.checks(golden_dir))
    assert len(rows) > 60
    assert [row for row in rows if not row.passed] == []


def test_a_folder_without_reference_files_has_no_checks(tmp_path):
    assert list(sampling.checks(tmp_path)) == []
