import numpy as np

from spatial_mllm_ros.benchmarks.storage import storage_rows
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics


def frame(t):
    v, u = np.mgrid[:24, :32]
    rgb = np.stack([5 * u + t, 7 * v, 2 * (u + v)], axis=-1).astype(np.uint8)
    pose = np.eye(4)
    pose[:3, 3] = [0.3 * t, 0.0, 0.1 * t]
    depth_m = (1.0 + 0.02 * u + 0.01 * v).astype(np.float32)
    return Frame((1 + t) * 10**9, rgb, "cam", Intrinsics(30, 31, 15, 12, 32, 24), depth_m, pose)


def test_the_rows_say_what_saving_costs_and_loses():
    rows = {row.name: row for row in storage_rows(map(frame, range(20)), name="made up")}
    assert rows["storage.same_evidence"].value == 1
    assert 30 < rows["storage.picture_psnr_db_second_time"].value <= rows["storage.picture_psnr_db"].value < 100
    assert rows["storage.bytes_on_disk"].value > 0
    assert "20 frames of 32x24" in rows["storage.save_s"].detail
