"""The node's parameters: declared once, with description, range and unit, and read into one frozen object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from spatial_mllm_ros.answering.context import ContextConfig
from spatial_mllm_ros.answering.setup import SessionConfig
from spatial_mllm_ros.engines.choose import BACKENDS
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.saved.save_load import SceneOrigin, default_root


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: all of them are read when the node is configured, so changes take effect at the next configure."""

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def descriptor(self) -> ParameterDescriptor:
        """The ROS description, with the range where there is one."""
        description = self.description + (f" One of: {', '.join(self.choices)}." if self.choices else "")
        descriptor = ParameterDescriptor(name=self.name, description=description)
        if self.minimum is None or self.maximum is None:
            return descriptor
        if isinstance(self.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=0)]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum), step=0.0)
            ]
        return descriptor


# One source for the defaults: the node and a replay without ROS do the same.
_SESSION = SessionConfig()
_SCENE = _SESSION.scene
_CONTEXT = _SESSION.context

SPECS = (
    ParameterSpec("autostart", True, "Configure and activate at start; false: wait for a lifecycle manager."),
    ParameterSpec(
        "checkpoint",
        "",
        "Folder of the model (config.json, safetensors, tokenizer); empty: the one in the box.",
    ),
    ParameterSpec("device", "auto", "Where the models run.", choices=("auto", "cpu", "cuda")),
    ParameterSpec("threads", 0, "CPU threads of the models; 0: half of the cores, so that ROS keeps the rest.", 0, 256),
    ParameterSpec(
        "scene_frame",
        "odom",
        "tf frame in which the scene is kept: odom, or map where there is one. Never published by this node.",
    ),
    ParameterSpec("input.depth", False, "Use the depth topic (16UC1 mm or 32FC1 m, registered to the colour image)."),
    ParameterSpec("input.pose_source", "none", "Where camera poses come from.", choices=("none", "tf", "topic")),
    ParameterSpec(
        "input.reliability",
        "best_effort",
        "Reliability of the image, depth and camera_info subscriptions.",
        choices=("best_effort", "reliable"),
    ),
    ParameterSpec("input.compressed", False, "Subscribe to image/compressed (jpeg, png) instead of image."),
    ParameterSpec("input.match_slop_s", 0.02, "Largest stamp difference of an image, its depth and its pose.", 0, 1),
    ParameterSpec("input.match_wait_s", 0.5, "How long, by stamps, an image waits for its depth and pose.", 0, 10),
    ParameterSpec("buffer.capacity", _SCENE.ring_frames, "Frames in the ring buffer.", 2, 100_000),
    ParameterSpec("buffer.max_bytes", _SCENE.ring_bytes, "Pixel bytes in the ring buffer.", 1024**2, 2**40),
    ParameterSpec(
        "buffer.rate_hz", _SCENE.rate_hz, "Frames taken into the buffer per second of stamps, at most.", 0.01, 1000
    ),
    ParameterSpec(
        "buffer.keyframe_capacity", _SCENE.keyframes, "Frames kept beyond the ring for what only they show.", 0, 100_000
    ),
    ParameterSpec("buffer.keyframe_max_bytes", _SCENE.keyframe_bytes, "Pixel bytes in the keyframe store.", 0, 2**40),
    ParameterSpec("selection.frames", _SCENE.selected_frames, "Frames in the evidence set.", 2, 128),
    ParameterSpec(
        "selection.voxel_size_m", _SCENE.voxel_size_m, "Finest voxel edge when the scene is metric.", 0.001, 1
    ),
    ParameterSpec(
        "selection.age_half_life_s",
        _SCENE.age_half_life_s,
        "Age after which a frame's gain has lost half of selection.age_discount.",
        0.1,
        1e6,
    ),
    ParameterSpec(
        "selection.age_discount",
        _SCENE.age_discount,
        "By how much less the gain of a very old frame counts; 0: age counts for nothing.",
        0,
        0.99,
    ),
    ParameterSpec(
        "selection.seen_through_frames",
        _SCENE.seen_through_frames,
        "Frames that must look through a voxel before older frames no longer count what they saw there; 0: never.",
        0,
        255,
    ),
    ParameterSpec("encoder.window", _SESSION.encoder_window, "New frames per call of the spatial encoder.", 1, 64),
    ParameterSpec(
        "encoder.anchors", _SESSION.encoder_anchors, "Known frames per call, which tie a window to the scene.", 1, 16
    ),
    ParameterSpec(
        "encoder.image_width_px",
        _SESSION.encoder_image_width_px,
        "Width at which the encoder sees frames for the scene; 0: as the checkpoint was trained.",
        0,
        2044,
    ),
    ParameterSpec(
        "encoder.backend",
        _SESSION.encoder_backend,
        "What runs the spatial encoder; auto: TensorRT engines in the cache, else exports in ONNX Runtime, else torch.",
        choices=BACKENDS,
    ),
    ParameterSpec(
        "encoder.exports",
        _SESSION.encoder_exports,
        "Folder of what `spatial_mllm engine export` wrote; empty: the user's cache folder.",
    ),
    ParameterSpec("context.refresh", _CONTEXT.refresh, "Read the evidence set in advance, while no question waits."),
    ParameterSpec(
        "context.refresh_share",
        _CONTEXT.refresh_share,
        "Share of the evidence set that must have changed before it is read anew.",
        0,
        1,
    ),
    ParameterSpec(
        "context.refresh_interval_s", _CONTEXT.refresh_interval_s, "Least time between two refreshes.", 0, 3600
    ),
    ParameterSpec(
        "context.max_age_s", _CONTEXT.max_age_s, "From this age on, any change of the evidence set is enough.", 0, 1e9
    ),
    ParameterSpec(
        "context.usable_share",
        _CONTEXT.usable_share,
        "A question takes the context there is unless a larger share of the evidence set has changed.",
        0,
        1,
    ),
    ParameterSpec(
        "context.cache_bytes", _CONTEXT.cache_bytes, "Bound of the tokens kept per frame and frame pair.", 0, 2**40
    ),
    ParameterSpec("query.default_deadline_s", 30.0, "Deadline of questions that state none.", 0.01, 3600),
    ParameterSpec("query.queue_size", 4, "Questions that may wait; one more is answered BUSY at once.", 1, 1000),
    ParameterSpec("query.max_view_age_s", 30.0, "Older than this, a view is too stale to answer from.", 0.1, 1e9),
    ParameterSpec("query.max_new_tokens", _SESSION.max_new_tokens, "Longest answer, in tokens.", 1, 4096),
    ParameterSpec(
        "memory.directory",
        "",
        "Folder below which clients may save and load scenes; empty: scenes in the user's state folder.",
    ),
)

DECLARED = tuple(spec.name for spec in SPECS)


@dataclass(frozen=True)
class NodeParameters:
    """The values of all parameters, checked; ``values`` is keyed by the dotted names."""

    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @classmethod
    def declare(cls, node: Any) -> None:
        """Declares every parameter on ``node`` (an rclpy node) with its descriptor."""
        for spec in SPECS:
            node.declare_parameter(spec.name, spec.default, spec.descriptor())

    @classmethod
    def read(cls, node: Any) -> NodeParameters:
        """Reads the current values.

        Raises:
            ConfigurationError: a value is not one of its choices, or the checkpoint folder does not exist.
        """
        values = {spec.name: node.get_parameter(spec.name).value for spec in SPECS}
        for spec in SPECS:
            if spec.choices and values[spec.name] not in spec.choices:
                raise ConfigurationError(
                    f"Parameter {spec.name} is {values[spec.name]!r}; it must be one of {', '.join(spec.choices)}."
                )
        checkpoint = values["checkpoint"]
        if checkpoint and not Path(checkpoint).is_dir():
            raise ConfigurationError(
                f"Parameter checkpoint names {checkpoint!r}, which is not a folder; give the folder with config.json."
            )
        if values["memory.directory"] and not Path(values["memory.directory"]).is_absolute():
            raise ConfigurationError(
                f"Parameter memory.directory is {values['memory.directory']!r}; it must be an absolute path, or empty."
            )
        return cls(values)

    def memory_root(self) -> Path:
        """The only folder in which scenes are written and read."""
        return Path(self["memory.directory"]) if self["memory.directory"] else default_root()

    def scene_origin(self) -> SceneOrigin:
        """What the geometry of this run comes from, as far as the parameters say it."""
        posed = self["input.pose_source"] != "none"
        return SceneOrigin(self["scene_frame"] if posed else "", measures=posed and self["input.depth"])

    def session_config(self) -> SessionConfig:
        """The session that these parameters describe."""
        return SessionConfig(
            checkpoint=self["checkpoint"],
            device=self["device"],
            threads=self["threads"],
            max_new_tokens=self["query.max_new_tokens"],
            encoder_window=self["encoder.window"],
            encoder_anchors=self["encoder.anchors"],
            encoder_image_width_px=self["encoder.image_width_px"],
            encoder_backend=self["encoder.backend"],
            encoder_exports=self["encoder.exports"],
            scene=SceneConfig(
                ring_frames=self["buffer.capacity"],
                ring_bytes=self["buffer.max_bytes"],
                rate_hz=self["buffer.rate_hz"],
                keyframes=self["buffer.keyframe_capacity"],
                keyframe_bytes=self["buffer.keyframe_max_bytes"],
                selected_frames=self["selection.frames"],
                voxel_size_m=self["selection.voxel_size_m"],
                age_half_life_s=self["selection.age_half_life_s"],
                age_discount=self["selection.age_discount"],
                seen_through_frames=self["selection.seen_through_frames"],
            ),
            context=ContextConfig(
                refresh=self["context.refresh"],
                refresh_share=self["context.refresh_share"],
                refresh_interval_s=self["context.refresh_interval_s"],
                max_age_s=self["context.max_age_s"],
                usable_share=self["context.usable_share"],
                cache_bytes=self["context.cache_bytes"],
            ),
        )
