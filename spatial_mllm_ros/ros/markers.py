"""The scene as markers for RViz and Foxglove, in the scene frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.ros.conversions import time_message
from spatial_mllm_ros.scene.records import PlacedFrame
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.scene.voxels import coarsen, voxel_centres

if TYPE_CHECKING:
    from rclpy.publisher import Publisher

MAX_VOXELS = 20_000  # a message of half a megabyte; more are thinned regularly
VOXELS, SELECTED, EVIDENCE, EVIDENCE_ENDS = "voxels", "selected_cameras", "evidence_views", "evidence_ends"

# Age of a voxel, from just seen to longest ago: three colours that differ in lightness too.
_AGES = np.array([[0.99, 0.91, 0.14], [0.13, 0.57, 0.55], [0.27, 0.0, 0.33]])
_SELECTED_COLOR = (0.0, 0.45, 0.7, 1.0)
_EVIDENCE_COLOR = (0.9, 0.62, 0.0, 1.0)
_FRUSTUM_VOXELS = 3.0  # length of a frustum, in edges of the present grid's voxels
# Corners of the image and the camera itself: the twelve ends of a frustum's eight lines.
_LINES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


class MarkerOutput:
    """Publishes the markers, and publishes them again only after something has changed.

    Attributes:
        evidence_stamps_ns: of the latest answer; set by the node.
    """

    def __init__(self, publisher: Publisher[MarkerArray]) -> None:
        self._publisher = publisher
        self._shown: object = None
        self.evidence_stamps_ns: tuple[int, ...] = ()

    def has_viewers(self) -> bool:
        """Whether anybody has subscribed."""
        return bool(self._publisher.get_subscription_count())

    def publish(self, scene: Scene, scene_frame: str) -> None:
        """Takes some milliseconds for some thousand voxels: not for the executor's thread."""
        snapshot, evidence = scene.snapshot, self.evidence_stamps_ns
        selection = snapshot.selection
        state = (selection, evidence, scene_frame)
        if state == self._shown:
            return
        self._shown = state
        self._publisher.publish(
            scene_markers(
                snapshot.placed,
                selection.stamps_ns,
                evidence,
                fine_voxel_size=snapshot.fine_voxel_size,
                level=snapshot.level,
                scene_frame=scene_frame,
                stamp_ns=selection.newest_stamp_ns,
            )
        )


def scene_markers(
    placed: Sequence[PlacedFrame],
    selected: Collection[int],
    evidence: Collection[int],
    *,
    fine_voxel_size: float,
    level: int,
    scene_frame: str,
    stamp_ns: int,
) -> MarkerArray:
    """Voxels coloured by age, the selected cameras, and from where the latest answer's evidence looks at what.

    Args:
        placed: the frames held, in time order.
        selected, evidence: stamps of the frames selected now, and of those that the latest answer was given from.
        fine_voxel_size, level: of the scene's grid, see ``SceneSnapshot``.
        scene_frame: tf frame of all markers.
        stamp_ns: their time.

    Returns:
        one marker per name (voxels, selected_cameras, evidence_views, evidence_ends); one without content deletes what
        was shown under its name before.
    """
    edge = fine_voxel_size * (1 << level)
    by_stamp = {frame.stamp_ns: frame for frame in placed}
    views = [by_stamp[stamp] for stamp in sorted(evidence) if stamp in by_stamp]
    centres = [_seen_centre(frame, fine_voxel_size) for frame in views]
    markers = (
        _voxels(placed, fine_voxel_size, level),
        _lines(
            SELECTED,
            [_frustum(by_stamp[s], _FRUSTUM_VOXELS * edge) for s in sorted(selected) if s in by_stamp],
            0.12 * edge,
            _SELECTED_COLOR,
        ),
        _lines(
            EVIDENCE,
            [np.stack([frame.scene_from_cam[:3, 3], end]) for frame, end in zip(views, centres, strict=True)],
            0.08 * edge,
            _EVIDENCE_COLOR,
        ),
        _ends(centres, 0.6 * edge),
    )
    for marker in markers:
        marker.header.frame_id = scene_frame
        marker.header.stamp = time_message(stamp_ns)
        marker.pose.orientation.w = 1.0
        marker.action = Marker.ADD if marker.points else Marker.DELETE
    return MarkerArray(markers=list(markers))


def last_seen(placed: Sequence[PlacedFrame], level: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxel keys int64 [n] of the grid ``level``, ascending, and the stamp int64 [n] of each one's latest sighting."""
    keys = [coarsen(frame.fine_keys, level) for frame in placed]
    if not keys:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    together = np.concatenate(keys)
    stamps = np.repeat([frame.stamp_ns for frame in placed], [len(part) for part in keys])
    # unique() gives the first occurrences; of the reversed sequence they are the latest ones
    unique, first = np.unique(together[::-1], return_index=True)
    return unique, stamps[::-1][first]


def _voxels(placed: Sequence[PlacedFrame], fine_voxel_size: float, level: int) -> Marker:
    keys, stamps = last_seen(placed, level)
    stride = -(-len(keys) // MAX_VOXELS) if len(keys) else 1
    keys, stamps = keys[::stride], stamps[::stride]
    edge = fine_voxel_size * (1 << level)
    marker = Marker(ns=VOXELS, type=Marker.CUBE_LIST, scale=Vector3(x=edge, y=edge, z=edge))
    marker.color.a = 1.0
    if len(keys):
        marker.points = _points(voxel_centres(keys, fine_voxel_size, level))
        newest, oldest = int(stamps.max()), int(stamps.min())
        age = (newest - stamps) / max(1, newest - oldest)
        rgb = np.stack([np.interp(age, (0.0, 0.5, 1.0), _AGES[:, channel]) for channel in range(3)], axis=1)
        marker.colors = [ColorRGBA(r=r, g=g, b=b, a=0.6) for r, g, b in rgb.tolist()]
    return marker


def _lines(
    name: str, parts: Sequence[NDArray[np.float64]], width: float, color: tuple[float, float, float, float]
) -> Marker:
    """A list of lines from parts [2 k, 3]: the ends of k lines each."""
    marker = Marker(ns=name, type=Marker.LINE_LIST, scale=Vector3(x=width))
    marker.color = ColorRGBA(r=color[0], g=color[1], b=color[2], a=color[3])
    if parts:
        marker.points = _points(np.concatenate(parts))
    return marker


def _ends(centres: Sequence[NDArray[np.float64]], size: float) -> Marker:
    marker = Marker(ns=EVIDENCE_ENDS, type=Marker.SPHERE_LIST, scale=Vector3(x=size, y=size, z=size))
    marker.color = ColorRGBA(r=_EVIDENCE_COLOR[0], g=_EVIDENCE_COLOR[1], b=_EVIDENCE_COLOR[2], a=_EVIDENCE_COLOR[3])
    marker.points = _points(np.array(centres).reshape(-1, 3))
    return marker


def _frustum(frame: PlacedFrame, length: float) -> NDArray[np.float64]:
    """The ends [16, 3] of the lines from the camera through the image's corners at depth ``length``, and around it."""
    corners = np.vstack([np.zeros(3), _corner_rays(frame.intrinsics) * length])
    in_scene = corners @ frame.scene_from_cam[:3, :3].T + frame.scene_from_cam[:3, 3]
    ends: NDArray[np.float64] = in_scene[np.array(_LINES).reshape(-1)]
    return ends


def _corner_rays(camera: Intrinsics) -> NDArray[np.float64]:
    """Points [4, 3] at depth 1 behind the outer corners of the image, around it; optical axes."""
    right, bottom = camera.width_px - 0.5, camera.height_px - 0.5
    pixels = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
    x = (pixels[:, 0] - camera.cx_px) / camera.fx_px
    y = (pixels[:, 1] - camera.cy_px) / camera.fy_px
    return np.stack([x, y, np.ones(4)], axis=1)


def _seen_centre(frame: PlacedFrame, fine_voxel_size: float) -> NDArray[np.float64]:
    """The middle [3] of what the frame sees; the camera itself where it sees nothing."""
    if not len(frame.fine_keys):
        return np.asarray(frame.scene_from_cam[:3, 3])
    return np.asarray(np.median(voxel_centres(frame.fine_keys, fine_voxel_size, 0).astype(np.float64), axis=0))


def _points(xyz: NDArray[np.float64] | NDArray[np.float32]) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in xyz.astype(np.float64).tolist()]
