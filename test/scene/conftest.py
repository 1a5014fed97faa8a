"""Scenes with something in them, for saving and loading."""

from collections.abc import Callable

import numpy as np
import pytest

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.encoders.fake import FakeGeometryEncoder
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.scene import Scene

S = 1_000_000_000
HEIGHT, WIDTH = 20, 28


def pose_at(seconds: float) -> np.ndarray:
    """A camera that turns about an inclined axis and walks, inside the fake room."""
    turn, pose = 0.4 * seconds, np.eye(4)
    axis = np.array([0.1, 0.97, 0.22]) / np.linalg.norm([0.1, 0.97, 0.22])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    pose[:3, :3] += np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross
    pose[:3, 3] = [0.5 * np.sin(0.3 * seconds), 0.1, 0.4 * np.cos(0.2 * seconds)]
    return pose


@pytest.fixture
def make_frame() -> Callable[..., Frame]:
    """A frame at a time in seconds; smooth pixels that differ from frame to frame, so that JPEG keeps them well."""

    def make(seconds, *, height=HEIGHT, width=WIDTH, camera="cam", posed=False, depth=False) -> Frame:
        v, u = np.mgrid[:height, :width]
        rgb = np.stack([4 * u + seconds, 5 * v + 2 * seconds, 3 * (u + v)], axis=-1)
        depth_m = None
        if depth:
            depth_m = (0.5 + 0.01 * np.mgrid[: height // 2, : width // 2].sum(axis=0) + seconds / 100).astype(
                np.float32
            )
            depth_m[1, 2:5] = np.nan
        return Frame(
            round(seconds * S),
            (rgb % 256).astype(np.uint8),
            camera,
            Intrinsics(0.9 * width, 0.8 * width, width / 2 - 0.75, height / 2 + 0.5, width, height),
            depth_m,
            pose_at(seconds) if posed else None,
        )

    return make


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    """An empty scene with a fake encoder; keyword arguments change the configuration."""

    def make(encoder=None, scale=ScaleSource.MODEL, **changes) -> Scene:
        values = {"rate_hz": 0.0, "ring_frames": 8, "keyframes": 5, "selected_frames": 4, **changes}
        return Scene(SceneConfig(**values), encoder or FakeGeometryEncoder(window_size=1, scale_source=scale))

    return make


@pytest.fixture
def show() -> Callable[..., None]:
    """Adds frames to a scene and has each of them placed at once."""

    def feed(scene, frames) -> None:
        for frame in frames:
            scene.add(frame)
            scene.process()

    return feed


@pytest.fixture
def seen(make_scene, make_frame, show) -> Scene:
    """A scene whose ring and keyframe store are full."""
    scene = make_scene()
    show(scene, map(make_frame, range(1, 30)))
    return scene
