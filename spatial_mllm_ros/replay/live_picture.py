"""The picture of what a running node selected, compared with the whole recording that was played to the node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spatial_mllm_ros.answering.setup import SessionConfig, open_session
from spatial_mllm_ros.errors import SourceError
from spatial_mllm_ros.recordings.sources import FrameSource
from spatial_mllm_ros.replay.coverage_figures import CoverageFigures, coverage_figures
from spatial_mllm_ros.replay.picture import ContactFrame, KnownScene, write_picture
from spatial_mllm_ros.replay.scene_recorder import SceneRecorder
from spatial_mllm_ros.scene.config import SceneConfig


def write_live_picture(
    path: Path,
    source: FrameSource,
    gains: Mapping[int, int],
    checkpoint: str,
    *,
    known: KnownScene | None = None,
) -> CoverageFigures:
    """Draws the contact sheet and the coverage map of a selection that a node has published.

    Every frame of the recording is placed in a new scene, so that the comparison includes all frames that could have
    been selected.

    Args:
        path: of the PNG.
        source: the recording that was played, with its own stamps.
        gains: the node's selection: stamp in the recording -> voxels that this frame added.
        checkpoint: of the node; its spatial encoder places the frames where the recording has no depth.
        known: what is known of the scene, in the recording's scene frame.

    Raises:
        SourceError: the recording has none of the selected frames, or none of these could be placed.
    """
    scene = open_session(SessionConfig(checkpoint=checkpoint, scene=SceneConfig(rate_hz=0.0))).scene
    recorder = SceneRecorder(scene)
    shown = {}
    first_stamp_ns = 0
    for frame in source:
        first_stamp_ns = first_stamp_ns or frame.stamp_ns
        scene.add(frame)
        recorder.process()
        if frame.stamp_ns in gains:
            shown[frame.stamp_ns] = frame.rgb
    placed = {frame.stamp_ns for frame in recorder.seen}
    selected = [stamp for stamp in sorted(shown) if stamp in placed]
    if not selected:
        raise SourceError(f"None of the selected frames of {source.name!r} could be placed in a scene again.")
    scale = scene.status().scale_source
    unit = "m" if scale is None or scale.is_metric else "relative"
    figures = coverage_figures(
        recorder.seen, selected, level=recorder.level, fine_voxel_size=recorder.fine_voxel_size, unit=unit
    )
    write_picture(
        path,
        [ContactFrame(stamp, shown[stamp], gains[stamp]) for stamp in selected],
        recorder.seen,
        figures,
        fine_voxel_size=recorder.fine_voxel_size,
        title=f"{source.name}: what the node's {len(selected)} of {len(recorder.seen)} frames show of the scene",
        first_stamp_ns=first_stamp_ns,
        known=known,
    )
    return figures
