import dataclasses

import numpy as np
import pytest

from spatial_mllm_ros.geometry.oriented_boxes import OrientedBox
from spatial_mllm_ros.rooms.clips import ClipConfig, make_clips
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation, SceneObject, SceneRoom


def turned_scene(scene: SceneAnnotation, angle_rad: float, shift: tuple[float, float]) -> SceneAnnotation:
    """The scene as another scanner would have put it: turned about the vertical and shifted; all answers stay."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turn = np.array([[cos, -sin], [sin, cos]])

    def moved(thing: SceneObject) -> SceneObject:
        centre = np.array([*(turn @ thing.box.centre_m[:2] + shift), thing.box.centre_m[2]])
        return dataclasses.replace(thing, box=OrientedBox(centre, thing.box.size_m, thing.box.yaw_rad + angle_rad))

    seen = scene.visibility
    motion = np.eye(4)
    motion[:2, :2], motion[:2, 3] = turn, shift
    return dataclasses.replace(
        scene,
        objects=tuple(map(moved, scene.objects)),
        rooms=tuple(SceneRoom(room.name, room.polygon_m @ turn.T + shift) for room in scene.rooms),
        visibility=dataclasses.replace(seen, scene_from_cam=motion @ seen.scene_from_cam) if seen else None,
    )


@pytest.fixture(scope="session")
def scenes() -> list[SceneAnnotation]:
    """Ten generated scenes, none with walls along the axes."""
    clips = make_clips(range(100, 110), ClipConfig(frames=16, width_px=96, height_px=72))
    return [turned_scene(clip.annotation, 0.4 + 0.7 * n, (3.0 - n, 0.5 * n)) for n, clip in enumerate(clips)]


@pytest.fixture(scope="session")
def turned():
    """The function that turns and shifts a scene."""
    return turned_scene
