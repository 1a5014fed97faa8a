"""Messages to the types of this package and back: stamps, cameras, poses, images, selections, answers."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, Transform
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from spatial_mllm_ros.answering.answer import Answer
from spatial_mllm_ros.errors import FrameRejectedError
from spatial_mllm_ros.frames.codec import decode_color, decode_compressed_color, decode_depth, validate_image
from spatial_mllm_ros.geometry.cameras import Intrinsics, calibrated_camera
from spatial_mllm_ros.geometry.poses import matrix_from_quaternion
from spatial_mllm_ros.msg import AnswerTimings, FrameSelection, SpatialAnswer
from spatial_mllm_ros.scene.records import SceneStatus, Selection

try:
    from cv_bridge import CvBridge
except ImportError:  # it is not on the Python index, and its builds break with NumPy 2; frames.codec does the same
    CvBridge = None

_NS = 1_000_000_000


def stamp_ns(stamp: Time) -> int:
    """Integer nanoseconds of a message stamp."""
    return stamp.sec * _NS + stamp.nanosec


def time_message(stamp: int) -> Time:
    """Message stamp of integer nanoseconds."""
    return Time(sec=stamp // _NS, nanosec=stamp % _NS)


def duration_message(duration_ns: int) -> Duration:
    """Duration message of integer nanoseconds."""
    return Duration(sec=duration_ns // _NS, nanosec=duration_ns % _NS)


def nanoseconds(seconds: float) -> int:
    """Integer nanoseconds of a parameter in seconds."""
    return round(seconds * _NS)


def color_of(message: Image | CompressedImage, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB of a colour message, into ``out`` where it is given; FrameRejectedError if malformed."""
    if isinstance(message, CompressedImage):
        return decode_compressed_color(message.format, message.data, out=out)
    if CvBridge is None:
        return decode_color(*_image_fields(message), out=out)
    validate_image(*_image_fields(message))
    image = CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    if out is None:
        return np.asarray(image)
    np.copyto(out, image)
    return out


def depth_of(message: Image) -> NDArray[np.float32]:
    """float32 [h, w] metres of a depth message, NaN where there is none; FrameRejectedError if malformed."""
    return decode_depth(*_image_fields(message))


def _image_fields(message: Image) -> tuple[str, int, int, int, int, object]:
    return (message.encoding, message.height, message.width, message.step, message.is_bigendian, message.data)


def intrinsics_of(message: CameraInfo, *, width_px: int, height_px: int) -> Intrinsics:
    """The pinhole camera of ``message`` for an image of ``width_px`` x ``height_px``.

    Raises:
        FrameRejectedError: the camera is not calibrated, or its calibration is for another field of view.
    """
    try:
        camera = calibrated_camera(message.k, width_px=message.width, height_px=message.height)
        return camera.for_image(width_px, height_px)
    except FrameRejectedError as error:
        raise FrameRejectedError(
            error.cause, f"{error} Without depth no calibration is needed: set input.depth to false."
        ) from error


def camera_info_message(camera: Intrinsics, header: Header) -> CameraInfo:
    """The calibration of a pinhole camera without distortion, of the image size that ``camera`` belongs to."""
    return CameraInfo(header=header, **camera.calibration())


def matrix_of(pose: Pose | Transform) -> NDArray[np.float64]:
    """float64 [4, 4] parent-from-child matrix; FrameRejectedError where the quaternion is not a rotation."""
    t = pose.position if isinstance(pose, Pose) else pose.translation
    q = pose.orientation if isinstance(pose, Pose) else pose.rotation
    quaternion = np.array([q.x, q.y, q.z, q.w])
    norm = np.linalg.norm(quaternion)
    if not np.isfinite(norm) or abs(norm - 1.0) > 0.01 or not np.isfinite([t.x, t.y, t.z]).all():
        raise FrameRejectedError(
            "pose", f"The pose has the quaternion {quaternion.tolist()} of norm {norm:.3f}; it must be 1 and finite."
        )
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_quaternion(quaternion / norm)
    matrix[:3, 3] = (t.x, t.y, t.z)
    return matrix


def selection_message(selection: Selection, status: SceneStatus, scene_frame: str) -> FrameSelection:
    """The evidence set with its coverage figures."""
    message = FrameSelection(
        epoch=selection.epoch,
        stamps=[time_message(stamp) for stamp in selection.stamps_ns],
        gains=list(selection.gains),
        covered_voxels=selection.covered_voxels,
        total_voxels=selection.total_voxels,
        voxel_size=float(selection.voxel_size),
        scale_source=selection.scale_source.value if selection.scale_source else "",
        ring_frames=status.ring_frames,
        keyframes=status.keyframes,
        buffer_bytes=status.pixel_bytes,
        index_bytes=status.index_bytes,
    )
    message.header.frame_id = scene_frame
    message.header.stamp = time_message(selection.newest_stamp_ns)
    return message


def answer_message(answer: Answer, question: str, scene_frame: str) -> SpatialAnswer:
    """The message of an answer to ``question``."""
    timings = answer.timings
    message = SpatialAnswer(
        status=int(answer.status),
        message=answer.message,
        question=question,
        text=answer.text,
        has_value=answer.value is not None,
        value=answer.value if answer.value is not None else 0.0,
        unit=answer.unit,
        choice=-1 if answer.choice is None else answer.choice,
        confidence=answer.confidence,
        method=answer.method,
        scale_source=answer.scale_source.value if answer.scale_source else "",
        epoch=answer.epoch,
        evidence=[time_message(stamp) for stamp in answer.evidence_stamps_ns],
        newest_frame_age=duration_message(answer.newest_frame_age_ns),
        context=answer.context,
        context_age=duration_message(answer.context_age_ns),
        degradation=answer.degradation.value,
        timings=AnswerTimings(
            queued=duration_message(timings.queued_ns),
            selection=duration_message(timings.selection_ns),
            vision=duration_message(timings.vision_ns),
            first_token=duration_message(timings.first_token_ns),
            total=duration_message(timings.total_ns),
        ),
    )
    message.header.frame_id = scene_frame
    if answer.evidence_stamps_ns:
        message.header.stamp = time_message(answer.evidence_stamps_ns[-1])
    if answer.model is not None:
        message.model = answer.model.name
        message.model_sha256 = answer.model.sha256
        message.model_licence = answer.model.licence
        message.random_weights = answer.model.random_weights
    return message
