"""`/diagnostics`: camera, scene and model, each with a level and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from spatial_mllm_ros.ros.message_matching import FrameAssembler
from spatial_mllm_ros.scene.records import SceneStatus

_WARN_AFTER_NS = 1_000_000_000
_STALE_AFTER_NS = 5_000_000_000
_NOT_THE_CAMERAS_FAULT = frozenset({"thinned", "unprocessed", "encoder", "scale", "epoch"})


def camera_status(
    name: str,
    assembler: FrameAssembler,
    scene: SceneStatus,
    *,
    now_stamp_ns: int,
    incompatible_topics: Iterable[str],
) -> DiagnosticStatus:
    """Age of the newest frame, and what was rejected and why."""
    rejected = {cause: count for cause, count in sorted(scene.counts.items()) if cause not in _NOT_THE_CAMERAS_FAULT}
    age_ns = now_stamp_ns - scene.newest_stamp_ns if scene.newest_stamp_ns else None
    topics = ", ".join(sorted(incompatible_topics))
    if now_stamp_ns == 0:
        level, text = DiagnosticStatus.WARN, "Waiting for the clock: use_sim_time is set and /clock has not started."
    elif topics:
        level, text = DiagnosticStatus.ERROR, f"Incompatible QoS on {topics}; set input.reliability to what they offer."
    elif age_ns is None:
        level = DiagnosticStatus.WARN
        text = f"No frame yet; {assembler.received} images received. {assembler.last_reason}".strip()
    elif age_ns > _STALE_AFTER_NS:
        level, text = DiagnosticStatus.STALE, f"The newest frame is {age_ns / 1e9:.1f} s old; check the camera."
    elif age_ns > _WARN_AFTER_NS:
        level, text = DiagnosticStatus.WARN, f"The newest frame is {age_ns / 1e9:.1f} s old."
    elif rejected:
        level = DiagnosticStatus.WARN
        text = f"{sum(rejected.values())} images rejected. {assembler.last_reason}".strip()
    else:
        level, text = DiagnosticStatus.OK, "Frames arrive."
    values: dict[str, object] = {
        "received": assembler.received,
        "age_s": "" if age_ns is None else f"{age_ns / 1e9:.3f}",
    }
    values |= {f"rejected.{cause}": count for cause, count in rejected.items()}
    return _status(f"{name}: camera", level, text, values)


def scene_status(name: str, status: SceneStatus) -> DiagnosticStatus:
    """What is held, in frames and bytes, and whether the geometry works."""
    level, text = DiagnosticStatus.OK, f"{status.ring_frames} frames and {status.keyframes} keyframes."
    if status.last_encoder_error:
        level, text = DiagnosticStatus.ERROR, f"Geometry failed: {status.last_encoder_error}"
    elif status.encoder_fault:
        level, text = DiagnosticStatus.ERROR, status.encoder_fault
    values: dict[str, object] = {
        "epoch": status.epoch,
        "ring_frames": status.ring_frames,
        "keyframes": status.keyframes,
        "pixel_bytes": status.pixel_bytes,
        "index_bytes": status.index_bytes,
        "scale_source": status.scale_source.value if status.scale_source else "",
    }
    values |= {f"left_out.{cause}": count for cause, count in sorted(status.counts.items())}
    return _status(f"{name}: scene", level, text, values)


def node_status(name: str, state: str, model: str, licence: str, open_questions: int) -> DiagnosticStatus:
    """The lifecycle state, the model, and how many questions wait for their answer."""
    level = DiagnosticStatus.OK if state == "active" else DiagnosticStatus.WARN
    values: dict[str, object] = {"model": model, "weights_licence": licence, "open_questions": open_questions}
    return _status(f"{name}: model", level, f"The node is {state}.", values)


def _status(name: str, level: bytes, message: str, values: dict[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, hardware_id="", values=pairs)
