"""`/diagnostics`: one status each for camera, scene and model, as the package diagnostic_updater would publish them.

A status is named ``NODE: TASK``. Its level is OK, WARN (works, but look at it) or ERROR (does not work); STALE is left
to the aggregator, which sets it for a status that no longer arrives. The message says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from spatial_mllm_ros.scene.records import SceneStatus

_WARN_AFTER_NS = 1_000_000_000
_ERROR_AFTER_NS = 5_000_000_000
_NOT_REJECTED_IMAGES = frozenset({"thinned", "unprocessed", "encoder", "scale", "epoch"})
_NO_HARDWARE = "none"  # diagnostic_updater's convention for a status that does not belong to one device


def camera_status(
    node_name: str,
    scene: SceneStatus,
    *,
    received: int,
    waiting: int,
    last_reason: str,
    now_stamp_ns: int,
    incompatible_topics: Iterable[str],
) -> DiagnosticStatus:
    """The age of the newest frame, and how many images were rejected and why.

    Args:
        node_name: of the node, as the prefix of the status.
        scene: the status of the scene.
        received: colour images received.
        waiting: those of them that wait for their depth or pose.
        last_reason: why the latest rejected image was rejected.
        now_stamp_ns: the present in the clock of the stamps; 0 while that clock has not started.
        incompatible_topics: topics with a publisher whose QoS does not fit.
    """
    rejected = {cause: count for cause, count in sorted(scene.counts.items()) if cause not in _NOT_REJECTED_IMAGES}
    age_ns = now_stamp_ns - scene.newest_stamp_ns if scene.newest_stamp_ns else None
    topics = ", ".join(sorted(incompatible_topics))
    if now_stamp_ns == 0:
        level, text = DiagnosticStatus.WARN, "use_sim_time is set and /clock has not started; start its publisher."
    elif topics:
        level = DiagnosticStatus.ERROR
        text = f"Incompatible QoS on {topics}; set input.reliability to what the publishers offer."
    elif age_ns is None:
        level, text = DiagnosticStatus.WARN, f"No frame yet; {received} images received. {last_reason}".strip()
    elif age_ns > _ERROR_AFTER_NS:
        level, text = DiagnosticStatus.ERROR, f"The newest frame is {age_ns / 1e9:.1f} s old; check the camera."
    elif age_ns > _WARN_AFTER_NS:
        level, text = DiagnosticStatus.WARN, f"The newest frame is {age_ns / 1e9:.1f} s old."
    elif rejected:
        level, text = DiagnosticStatus.WARN, f"{sum(rejected.values())} images rejected. {last_reason}".strip()
    else:
        level, text = DiagnosticStatus.OK, "Frames arrive."
    values: dict[str, object] = {
        "received": received,
        "waiting": waiting,
        "age_s": "" if age_ns is None else f"{age_ns / 1e9:.3f}",
    }
    values |= {f"rejected.{cause}": count for cause, count in rejected.items()}
    return _status(f"{node_name}: camera", level, text, values)


def scene_status(node_name: str, status: SceneStatus) -> DiagnosticStatus:
    """What the scene holds, in frames and bytes, and whether the spatial encoder works."""
    level, text = DiagnosticStatus.OK, f"{status.ring_frames} frames and {status.keyframes} keyframes."
    if status.last_encoder_error:
        level, text = DiagnosticStatus.ERROR, f"The spatial encoder failed: {status.last_encoder_error}"
    elif status.encoder_fault:
        level, text = DiagnosticStatus.ERROR, status.encoder_fault
    values: dict[str, object] = {
        "epoch": status.epoch,
        "ring_frames": status.ring_frames,
        "keyframes": status.keyframes,
        "pending_frames": status.pending,
        "pixel_bytes": status.pixel_bytes,
        "index_bytes": status.index_bytes,
        "scale_source": status.scale_source.value if status.scale_source else "",
    }
    values |= {f"left_out.{cause}": count for cause, count in sorted(status.counts.items())}
    return _status(f"{node_name}: scene", level, text, values)


def model_status(node_name: str, state: str, model: str, licence: str, open_questions: int) -> DiagnosticStatus:
    """The lifecycle state, the model ("" while there is none), and how many questions wait for their answer."""
    level = DiagnosticStatus.OK if state == "active" else DiagnosticStatus.WARN
    values: dict[str, object] = {"model": model, "weights_licence": licence, "open_questions": open_questions}
    return _status(f"{node_name}: model", level, f"The node is {state}.", values)


def _status(name: str, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, hardware_id=_NO_HARDWARE, values=pairs)
