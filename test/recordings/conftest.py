"""A short recording that is cheap to write and hard to mix up: non-square, turned, different at every pixel."""

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics


def rotation(axis, angle_rad):
    return cv2.Rodrigues(np.asarray(axis, float) / np.linalg.norm(axis) * angle_rad)[0]


def make_frames(count=6, *, height=48, width=64, depth_scale=2, start_ns=1_000_000_000, period_ns=100_000_000):
    rng = np.random.default_rng(3)
    frames = []
    for index in range(count):
        smooth = cv2.resize(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8), (width, height))
        depth_mm = rng.integers(400, 5000, (height // depth_scale, width // depth_scale)).astype(np.float32)
        depth_m = (depth_mm / np.float32(1000)).astype(np.float32)
        depth_m[index % 3, 1] = np.nan
        pose = np.eye(4)
        pose[:3, :3] = rotation((0.3, -1.0, 0.2), 0.2 + 0.3 * index)
        pose[:3, 3] = (0.1 * index, -0.5, 2.0 - 0.2 * index)
        frames.append(
            Frame(
                start_ns + index * period_ns,
                smooth,
                camera_frame_id="camera_color_optical_frame",
                intrinsics=Intrinsics(50.0, 51.0, 33.0, 22.0, width, height),
                depth_m=depth_m,
                scene_from_cam=pose,
            )
        )
    return frames


@pytest.fixture
def frames():
    return make_frames()
