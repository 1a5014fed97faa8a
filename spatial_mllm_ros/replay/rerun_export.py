"""A replay as a recording for the Rerun viewer: `spatial_mllm replay ... --rerun FILE` (extra `rerun`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.replay.coverage_figures import union_keys
from spatial_mllm_ros.replay.results import Report
from spatial_mllm_ros.scene.voxels import voxel_centres

_TIMELINE = "recording"
_SELECTED, _PATH, _VOXELS = (0, 114, 178), (120, 120, 120), (180, 180, 180)


def write_rerun(path: Path, report: Report) -> None:
    """Writes voxels, camera path, selected cameras, coverage and answers of one replay, on the recording's timeline.

    Args:
        path: of the ``.rrd`` file.
        report: with its trace.

    Raises:
        ConfigurationError: rerun-sdk is not installed.
        SourceError: nothing was placed in the scene, or the file cannot be written.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise ConfigurationError(
            "rerun-sdk is not installed; install it with: pip install 'spatial-mllm-ros[rerun]'"
        ) from error
    trace, coverage = report.trace, report.coverage
    if trace is None or coverage is None:
        raise SourceError(f"There is nothing to show of {report.source_name!r}: no frame could be placed in the scene.")
    recording = rr.RecordingStream("spatial_mllm_replay", recording_id=report.hashes.get("recording"))
    try:
        recording.save(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"The Rerun file cannot be written to {path}: {error}") from error
    level = round(float(np.log2(coverage.voxel_size / trace.fine_voxel_size)))
    centres = voxel_centres(union_keys(trace.seen, None, level), trace.fine_voxel_size, level)
    half = np.full((len(centres), 3), coverage.voxel_size / 2, np.float32)
    recording.log("scene/voxels", rr.Boxes3D(centers=centres, half_sizes=half, colors=_VOXELS), static=True)
    positions = np.array([frame.scene_from_cam[:3, 3] for frame in trace.seen], np.float32)
    recording.log("scene/path", rr.LineStrips3D([positions], colors=_PATH), static=True)
    for frame in trace.seen:
        recording.set_time(_TIMELINE, duration=np.timedelta64(frame.stamp_ns - trace.first_stamp_ns, "ns"))
        pose = frame.scene_from_cam
        recording.log("scene/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        if (jpeg := trace.thumbnails.get(frame.stamp_ns)) is not None:
            recording.log("evidence", rr.EncodedImage(contents=jpeg, media_type="image/jpeg"))
        if frame.stamp_ns in report.selection.stamps_ns:
            where = pose[:3, 3].astype(np.float32)[None]
            recording.log(f"scene/selected/{frame.stamp_ns}", rr.Points3D(where, colors=_SELECTED, radii=0.04))
    for sample in report.coverage_over_time:
        recording.set_time(_TIMELINE, duration=np.timedelta64(sample.stamp_ns - trace.first_stamp_ns, "ns"))
        for name in ("selected", "uniform", "total"):
            recording.log(f"coverage/{name}", rr.Scalars(getattr(sample, name)))
    for item in report.questions:
        recording.set_time(_TIMELINE, duration=np.timedelta64(item.stamp_ns - trace.first_stamp_ns, "ns"))
        said = item.answer.text or item.answer.message
        recording.log("answers", rr.TextLog(f"{item.asked.question.text} -> {item.answer.status.name}: {said}"))
    recording.flush()
    recording.disconnect()
