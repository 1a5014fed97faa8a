"""The node's parameters: one typed declaration, from which descriptors, files and the session's configuration follow.

A field's annotation is the parameter's type, its metadata are the keyword arguments of ``Parameter``. What describes
the session has the session's own default. ``python -m spatial_mllm_ros.ros.parameter_files`` writes
``config/spatial_mllm.yaml`` and the table for readers from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from spatial_mllm_ros.answering.setup import SessionConfig
from spatial_mllm_ros.engines.choose import BACKENDS
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scene.saved.save_load import SceneOrigin, default_root

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rclpy.node import Node

    _Group = TypeVar("_Group", bound=DataclassInstance)

Value = bool | int | float | str
_SESSION = SessionConfig()


@dataclass(frozen=True)
class Parameter:
    """One parameter. All are read when the node is configured: a change takes effect at the next configuration.

    Attributes:
        name: dotted, as in ROS.
        unit: of the value; "" for texts, switches and plain numbers.
        bounds: the smallest and the largest value.
        choices: the values that a text may have; () for any.
        session: dotted name of the field of ``SessionConfig`` that it sets; "" where only the node knows it.
    """

    name: str
    default: Value
    description: str
    unit: str = ""
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    session: str = ""

    def descriptor(self) -> ParameterDescriptor:
        """The description that ROS shows."""
        descriptor = ParameterDescriptor(name=self.name, description=self.description)
        constraints = [f"One of: {', '.join(self.choices)}."] if self.choices else []
        constraints += [f"Unit: {self.unit}."] if self.unit else []
        descriptor.additional_constraints = " ".join(constraints)
        if self.bounds is None:
            return descriptor
        if isinstance(self.default, int):
            low, high = (int(bound) for bound in self.bounds)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
        else:
            low_, high_ = (float(bound) for bound in self.bounds)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low_, to_value=high_, step=0.0)]
        return descriptor

    def typed(self, value: Value) -> Value:
        """``value`` as ROS wants it: a whole number for a DOUBLE parameter is still a float."""
        return float(value) if isinstance(self.default, float) else value

    def fault(self, value: Value) -> str:
        """What is wrong with ``value``, in a sentence; "" for nothing."""
        if self.choices and value not in self.choices:
            return f"Parameter {self.name} is {value!r}; it must be one of {', '.join(self.choices)}."
        if self.bounds is not None and not (self.bounds[0] <= float(value) <= self.bounds[1]):
            low, high = self.bounds
            return f"Parameter {self.name} is {value!r}; it must be from {low:.15g} to {high:.15g}."
        return ""


def _of_node(default: Value, description: str, **details: object) -> Any:  # type: ignore[explicit-any]
    """A field whose annotation is the parameter's type; ``details`` are further attributes of ``Parameter``."""
    return field(default=default, metadata={"description": description, **details})


def _of_session(session: str, description: str, **details: object) -> Any:  # type: ignore[explicit-any]
    """The same for a field of ``SessionConfig``, whose default it takes."""
    return _of_node(attrgetter(session)(_SESSION), description, session=session, **details)


@dataclass(frozen=True)
class InputParameters:
    """What the camera gives, and how its messages are matched."""

    depth: bool = _of_node(
        False, "Use the depth topic (16UC1 in mm or 32FC1 in m), which must be registered to the colour image."
    )
    pose_source: str = _of_node("none", "Where camera poses come from.", choices=("none", "tf", "topic"))
    reliability: str = _of_node(
        "best_effort",
        "Reliability of the subscriptions to image, depth and camera_info.",
        choices=("best_effort", "reliable"),
    )
    compressed: bool = _of_node(False, "Subscribe to image/compressed (JPEG, PNG) instead of image.")
    match_slop_s: float = _of_node(
        0.02, "Largest difference between the stamps of an image, its depth and its pose.", unit="s", bounds=(0, 1)
    )
    match_wait_s: float = _of_node(
        0.5, "How long, by stamps, an image waits for its depth and its pose.", unit="s", bounds=(0, 10)
    )


@dataclass(frozen=True)
class BufferParameters:
    """Bounds of the frames held."""

    capacity: int = _of_session("scene.ring_frames", "Frames in the ring buffer.", unit="frames", bounds=(2, 100_000))
    max_bytes: int = _of_session(
        "scene.ring_bytes", "Bytes of pixels in the ring buffer, at most.", unit="bytes", bounds=(1024**2, 2**40)
    )
    rate_hz: float = _of_session(
        "scene.rate_hz",
        "Frames taken into the buffer per second of stamps, at most; 0: every frame.",
        unit="Hz",
        bounds=(0, 1000),
    )
    keyframe_capacity: int = _of_session(
        "scene.keyframes",
        "Frames kept beyond the ring buffer because they show what no other frame shows.",
        unit="frames",
        bounds=(0, 100_000),
    )
    keyframe_max_bytes: int = _of_session(
        "scene.keyframe_bytes", "Bytes of pixels of these keyframes, at most.", unit="bytes", bounds=(0, 2**40)
    )


@dataclass(frozen=True)
class SelectionParameters:
    """How the evidence set is selected."""

    frames: int = _of_session("scene.selected_frames", "Frames in the evidence set.", unit="frames", bounds=(2, 128))
    voxel_size_m: float = _of_session(
        "scene.voxel_size_m", "Edge of the finest voxels where the scene is metric.", unit="m", bounds=(0.001, 1)
    )
    age_half_life_s: float = _of_session(
        "scene.age_half_life_s",
        "Age at which a frame's gain has lost half of selection.age_discount.",
        unit="s",
        bounds=(0.1, 1e6),
    )
    age_discount: float = _of_session(
        "scene.age_discount",
        "How much less the gain of a very old frame counts, as a fraction; 0: age does not count.",
        bounds=(0, 0.99),
    )
    seen_through_frames: int = _of_session(
        "scene.seen_through_frames",
        "Frames that must see through a voxel before older frames no longer count it; 0: never.",
        unit="frames",
        bounds=(0, 255),
    )


@dataclass(frozen=True)
class EncoderParameters:
    """How the spatial encoder sees the stream, and what runs it."""

    window: int = _of_session(
        "encoder_window", "New frames per call of the spatial encoder.", unit="frames", bounds=(1, 64)
    )
    anchors: int = _of_session(
        "encoder_anchors", "Known frames per call, which tie the new ones to the scene.", unit="frames", bounds=(1, 16)
    )
    image_width_px: int = _of_session(
        "encoder_image_width_px",
        "Image width at which the encoder sees frames for the scene; 0: as the checkpoint was trained, 518 where it "
        "does not say.",
        unit="px",
        bounds=(0, 2044),
    )
    backend: str = _of_session(
        "encoder_backend",
        "What runs the spatial encoder; auto: TensorRT engines in the cache, else exports in ONNX Runtime, else torch.",
        choices=BACKENDS,
    )
    exports: str = _of_session(
        "encoder_exports",
        "Folder of the files that `spatial_mllm engine export` wrote; empty: the user's cache folder.",
    )


@dataclass(frozen=True)
class ContextParameters:
    """When the model reads the evidence set, and when what it has read may answer a question."""

    refresh: bool = _of_session("context.refresh", "Read the evidence set in advance, while no question waits.")
    refresh_changed_fraction: float = _of_session(
        "context.refresh_changed_fraction",
        "Fraction of the evidence set that must have changed before it is read again.",
        bounds=(0, 1),
    )
    refresh_interval_s: float = _of_session(
        "context.refresh_interval_s", "Shortest time between two refreshes.", unit="s", bounds=(0, 3600)
    )
    max_age_s: float = _of_session(
        "context.max_age_s",
        "From this age of the context on, any change of the evidence set leads to a refresh.",
        unit="s",
        bounds=(0, 1e9),
    )
    max_changed_fraction: float = _of_session(
        "context.max_changed_fraction",
        "A question uses the context unless a larger fraction of the evidence set has changed since.",
        bounds=(0, 1),
    )
    cache_bytes: int = _of_session(
        "context.cache_bytes",
        "Bytes of tokens kept per frame and frame pair, at most.",
        unit="bytes",
        bounds=(0, 2**40),
    )


@dataclass(frozen=True)
class QueryParameters:
    """Bounds of questions and answers."""

    default_deadline_s: float = _of_node(30.0, "Deadline of questions that state none.", unit="s", bounds=(0.01, 3600))
    queue_size: int = _of_node(
        4, "Questions that may wait; the next one is answered BUSY at once.", unit="questions", bounds=(1, 1000)
    )
    max_view_age_s: float = _of_node(
        30.0, "A question waits for a new frame when the newest one is older than this.", unit="s", bounds=(0.1, 1e9)
    )
    max_new_tokens: int = _of_session("max_new_tokens", "Longest answer.", unit="tokens", bounds=(1, 4096))


@dataclass(frozen=True)
class MemoryParameters:
    """Where scenes are saved."""

    directory: str = _of_node(
        "",
        "Absolute path of the folder below which scenes are saved and loaded; empty: spatial_mllm_ros/scenes in the "
        "user's state folder.",
    )


@dataclass(frozen=True)
class NodeParameters:
    """The values of all parameters.

    Raises:
        ConfigurationError: values outside of their range or choices; the message names all of them.
    """

    autostart: bool = _of_node(True, "Configure and activate at start; false: a lifecycle manager does it.")
    checkpoint: str = _of_session(
        "checkpoint", "Folder of the model (config.json, safetensors, tokenizer.json); empty: the bundled model."
    )
    device: str = _of_session(
        "device",
        "Where the models run; auto: CUDA where there is a device, else the CPU.",
        choices=("auto", "cpu", "cuda"),
    )
    threads: int = _of_session(
        "threads", "CPU threads of the models; 0: half of the cores, so that ROS keeps the others.", bounds=(0, 256)
    )
    scene_frame: str = _of_node(
        "odom", "tf frame in which the scene is kept: odom, or map where there is one. The node never publishes it."
    )
    input: InputParameters = field(default_factory=InputParameters)
    buffer: BufferParameters = field(default_factory=BufferParameters)
    selection: SelectionParameters = field(default_factory=SelectionParameters)
    encoder: EncoderParameters = field(default_factory=EncoderParameters)
    context: ContextParameters = field(default_factory=ContextParameters)
    query: QueryParameters = field(default_factory=QueryParameters)
    memory: MemoryParameters = field(default_factory=MemoryParameters)

    def __post_init__(self) -> None:
        values = self.values()
        faults = [fault for parameter in PARAMETERS if (fault := parameter.fault(values[parameter.name]))]
        if self.memory.directory and not Path(self.memory.directory).is_absolute():
            faults.append(
                f"Parameter memory.directory is {self.memory.directory!r}; it must be an absolute path, or empty."
            )
        if faults:
            raise ConfigurationError(" ".join(faults))

    @staticmethod
    def declare(node: Node) -> None:
        """Declares every parameter on ``node``."""
        for parameter in PARAMETERS:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())

    @classmethod
    def read(cls, node: Node) -> NodeParameters:
        """The current values of ``node``; see the class for what it raises."""
        return _filled(cls(), {parameter.name: node.get_parameter(parameter.name).value for parameter in PARAMETERS})

    @classmethod
    def from_session(cls, config: SessionConfig) -> NodeParameters:
        """The parameters with which a node makes the session of ``config``; the others have their defaults.

        Raises:
            ConfigurationError: the node has no parameter for a value of ``config``, or allows only others.
        """
        wanted = _leaves(config)
        made = _filled(cls(), {known.name: known.typed(wanted[known.session]) for known in PARAMETERS if known.session})
        got = _leaves(made.session_config())
        if differing := [f"{name} = {value!r}" for name, value in wanted.items() if value != got[name]]:
            raise ConfigurationError(f"The node has no parameter for {', '.join(differing)}; leave the default.")
        return made

    def session_config(self) -> SessionConfig:
        """The session that these parameters describe."""
        values = self.values()
        return _filled(_SESSION, {known.session: values[known.name] for known in PARAMETERS if known.session})

    def values(self) -> dict[str, Value]:
        """All values by their dotted names."""
        return _leaves(self)

    def arguments(self) -> list[str]:
        """All values as ROS arguments of the node's process, to follow ``--ros-args``."""
        return [part for name, value in self.values().items() for part in ("-p", f"{name}:={yaml_value(value)}")]

    def memory_root(self) -> Path:
        """The only folder in which scenes are written and read."""
        return Path(self.memory.directory) if self.memory.directory else default_root()

    def scene_origin(self) -> SceneOrigin:
        """Where the geometry of this run comes from, as far as the parameters say it."""
        posed = self.input.pose_source != "none"
        return SceneOrigin(self.scene_frame if posed else "", measures=posed and self.input.depth)


def yaml_value(value: Value) -> str:
    """``value`` in YAML, which ROS reads in a parameter file and after ``-p NAME:=``."""
    # Not as \\u escapes: those of characters beyond the BMP are pairs, which libyaml refuses.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else repr(value)


def _declared(group: type[DataclassInstance], prefix: str = "") -> Iterator[Parameter]:
    for member in fields(group):
        name = f"{prefix}{member.name}"
        if isinstance(member.default_factory, type):
            yield from _declared(member.default_factory, f"{name}.")
        elif member.default is not MISSING:
            yield Parameter(name, member.default, **member.metadata)


def _leaves(group: DataclassInstance, prefix: str = "") -> dict[str, Value]:
    """The values of nested dataclasses by their dotted names."""
    values: dict[str, Value] = {}
    for member in fields(group):
        value, name = getattr(group, member.name), f"{prefix}{member.name}"
        if isinstance(value, Value):
            values[name] = value
        else:
            values |= _leaves(value, f"{name}.")
    return values


def _filled(group: _Group, values: Mapping[str, Value], prefix: str = "") -> _Group:
    """``group`` with ``values`` by their dotted names in place of its own, in the nested dataclasses too."""
    changes = {}
    for member in fields(group):
        value, name = getattr(group, member.name), f"{prefix}{member.name}"
        if isinstance(value, Value):
            changes[member.name] = values.get(name, value)
        else:
            changes[member.name] = _filled(value, values, f"{name}.")
    return replace(group, **changes)


PARAMETERS = tuple(_declared(NodeParameters))
