"""All that a scene knows at one moment, as plain values: what is saved, and what a scene can be restored from."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_ros.encoders.base import Anchor, ScaleSource
from spatial_mllm_ros.errors import StorageError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.records import GridState, PlacedFrame


@dataclass(frozen=True, eq=False)
class SceneContent:
    """What a scene holds; its arrays and frames are shared with the scene, and no one changes them.

    Attributes:
        epoch: in which it was seen.
        placed: the frames that have geometry: keyframes first, then those in the ring, each in the order in which they
            came.
        unplaced: frames in the ring that the encoder could not place.
        anchors: for the next window, oldest first.
        grid, scale_source: None while no frame has geometry.
        newest_placed_ns: newest frame with geometry; 0 when there is none.
        waiting: frames that wait for the encoder; these are not part of the content.
    """

    epoch: int
    placed: tuple[PlacedFrame, ...] = ()
    unplaced: tuple[Frame, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    grid: GridState | None = None
    scale_source: ScaleSource | None = None
    newest_placed_ns: int = 0
    waiting: int = 0

    @property
    def keyframes(self) -> list[Frame]:
        """The frames beyond the ring, in the order in which they came."""
        return [p.frame for p in self.placed if p.is_keyframe]

    @property
    def ring(self) -> list[Frame]:
        """The frames in the ring, oldest first."""
        placed = [p.frame for p in self.placed if not p.is_keyframe]
        return sorted([*placed, *self.unplaced], key=lambda frame: frame.stamp_ns)

    @property
    def frames(self) -> list[Frame]:
        """All frames: keyframes first, then the ring."""
        return [*self.keyframes, *self.ring]


def refuse_what_does_not_fit(
    content: SceneContent, config: SceneConfig, anchor_count: int, newest: Frame | None
) -> None:
    """Checks that a scene of these settings can hold ``content`` whole and go on with it.

    Args:
        anchor_count: of the encoder.
        newest: the newest frame of the running camera; None when none has come.

    Raises:
        StorageError: ``settings``, with every setting that has to be changed; ``empty``.
    """
    if not content.frames:
        raise StorageError("empty", "The saved scene holds no frame; use another one.")
    ring, keyframes = content.ring, content.keyframes
    needed = {
        "buffer.capacity": (len(ring), config.ring_frames, "frames"),
        "buffer.max_bytes": (sum(f.nbytes for f in ring), config.ring_bytes, "bytes"),
        "buffer.keyframe_capacity": (len(keyframes), config.keyframes, "frames"),
        "buffer.keyframe_max_bytes": (sum(f.nbytes for f in keyframes), config.keyframe_bytes, "bytes"),
    }
    wrong = [
        f"It holds {least} {unit} for which {name} is {allowed}; set that to {least} at least."
        for name, (least, allowed, unit) in needed.items()
        if least > allowed
    ]
    metric = content.scale_source is not None and content.scale_source.is_metric
    if content.grid is not None and metric and content.grid.voxel_size != config.voxel_size_m:
        wrong.append(
            f"Its finest voxel is {content.grid.voxel_size} m and selection.voxel_size_m is {config.voxel_size_m}; set "
            f"that to {content.grid.voxel_size}."
        )
    wrong += _other_camera(content.frames[-1], newest)
    if content.grid is not None and anchor_count and not content.anchors:
        wrong.append(
            "It holds no anchors, which this encoder needs to place new frames; save it with encoder.anchors above 0."
        )
    if wrong:
        raise StorageError("settings", " ".join(["The saved scene does not fit the running one.", *wrong]))


def _other_camera(saved: Frame, running: Frame | None) -> list[str]:
    """As for a running scene: nothing ties another camera without poses to it."""
    if running is None or running.scene_from_cam is not None or running.is_like(saved):
        return []
    sizes = [f"{frame.rgb.shape[1]}x{frame.rgb.shape[0]} {frame.camera_frame_id!r}" for frame in (saved, running)]
    return [f"It was seen by a camera {sizes[0]} and the present one is {sizes[1]}, without poses; use that camera."]
