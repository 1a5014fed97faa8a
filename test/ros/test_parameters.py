"""One declaration of the parameters, and everything that follows from it."""

import re
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from spatial_mllm_ros.answering.setup import SessionConfig  # noqa: E402
from spatial_mllm_ros.errors import ConfigurationError  # noqa: E402
from spatial_mllm_ros.ros.parameter_files import TABLE_BEGIN, markdown_table, with_table, yaml_text  # noqa: E402
from spatial_mllm_ros.ros.parameters import (  # noqa: E402
    PARAMETERS,
    BufferParameters,
    InputParameters,
    MemoryParameters,
    NodeParameters,
    QueryParameters,
    yaml_value,
)
from spatial_mllm_ros.scene.config import SceneConfig  # noqa: E402
from spatial_mllm_ros.scene.saved.save_load import SceneOrigin  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OF_SESSION = [parameter for parameter in PARAMETERS if parameter.session]


def another(parameter):
    """A value of the parameter other than its default, from its range or choices."""
    if isinstance(parameter.default, bool):
        return not parameter.default
    if isinstance(parameter.default, str):
        return next((choice for choice in parameter.choices if choice != parameter.default), "/another/place")
    other = parameter.default + (1 if isinstance(parameter.default, int) else 0.125)
    return other if other <= parameter.bounds[1] else parameter.bounds[0]


def session_with_everything_changed() -> SessionConfig:
    parts = {"": {}, "scene": {}, "context": {}}
    for parameter in OF_SESSION:
        part, _, name = parameter.session.rpartition(".")
        parts[part][name] = another(parameter)
    config = SessionConfig()
    scene, context = replace(config.scene, **parts["scene"]), replace(config.context, **parts["context"])
    return SessionConfig(**parts[""], scene=scene, context=context)


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_a_parameter_is_described_and_its_unit_is_that_of_its_name(parameter):
    assert re.fullmatch(r"[A-Zt].*\.", parameter.description)
    suffix = {"_s": "s", "_m": "m", "_hz": "Hz", "_px": "px", "_bytes": "bytes"}
    by_name = next((unit for ending, unit in suffix.items() if parameter.name.endswith(ending)), None)
    assert by_name is None or parameter.unit == by_name
    assert parameter.unit == "" or parameter.bounds is not None
    assert parameter.fault(parameter.default) == ""


@pytest.mark.parametrize("parameter", OF_SESSION, ids=lambda parameter: parameter.name)
def test_the_default_is_the_sessions_own(parameter):
    default = attrgetter(parameter.session)(SessionConfig())
    assert (parameter.default, type(parameter.default)) == (default, type(default))


def test_the_parameters_of_a_session_describe_that_session():
    changed = session_with_everything_changed()
    parameters = NodeParameters.from_session(changed)
    assert all(parameters.values()[p.name] != p.default for p in OF_SESSION)
    assert parameters.session_config() == changed
    assert NodeParameters().session_config() == SessionConfig()


def test_a_session_that_no_parameters_describe_is_refused_with_the_value():
    config = SessionConfig(scene=SceneConfig(keyframe_min_gain=7))
    with pytest.raises(ConfigurationError, match=r"no parameter for scene\.keyframe_min_gain = 7"):
        NodeParameters.from_session(config)


def test_a_session_outside_of_the_range_of_a_parameter_is_refused():
    with pytest.raises(ConfigurationError, match=r"selection\.frames is 500; it must be from 2 to 128"):
        NodeParameters.from_session(SessionConfig(scene=SceneConfig(selected_frames=500)))


def test_a_whole_number_is_a_float_for_a_parameter_that_is_one():
    parameters = NodeParameters.from_session(SessionConfig(scene=SceneConfig(rate_hz=0)))
    assert "buffer.rate_hz:=0.0" in parameters.arguments()


def test_all_faults_are_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        NodeParameters(
            device="gpu",
            buffer=BufferParameters(rate_hz=float("nan")),
            query=QueryParameters(queue_size=0),
            memory=MemoryParameters(directory="scenes"),
        )
    assert "device is 'gpu'; it must be one of auto, cpu, cuda." in str(caught.value)
    assert "buffer.rate_hz is nan; it must be from 0 to 1000." in str(caught.value)
    assert "query.queue_size is 0; it must be from 1 to 1000." in str(caught.value)
    assert "memory.directory is 'scenes'; it must be an absolute path, or empty." in str(caught.value)


def test_a_node_reads_what_its_arguments_say():
    given = replace(
        NodeParameters.from_session(session_with_everything_changed()),
        checkpoint='/models/caf\u00e9 \U0001f600 with "quotes" and: colons',
        scene_frame="7",  # a text, although it looks like a number
        input=InputParameters(depth=True, pose_source="topic", match_slop_s=0.0),
        query=QueryParameters(max_view_age_s=1e6),
    )
    rclpy.init(args=["--ros-args", *given.arguments()])
    try:
        node = rclpy.create_node("parameters_under_test")
        NodeParameters.declare(node)
        assert NodeParameters.read(node) == given
        descriptor = node.describe_parameter("query.queue_size")
        assert (descriptor.integer_range[0].from_value, descriptor.integer_range[0].to_value) == (1, 1000)
        descriptor = node.describe_parameter("buffer.rate_hz")
        assert (descriptor.floating_point_range[0].to_value, descriptor.additional_constraints) == (1000.0, "Unit: Hz.")
        assert node.describe_parameter("device").additional_constraints == "One of: auto, cpu, cuda."
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.mark.parametrize("value", [True, 3, 1e6, 0.02, "", "true", "7", 'a "quoted" name', "caf\u00e9"])
def test_a_value_in_yaml_has_the_same_type_and_value(value):
    read = yaml.safe_load(yaml_value(value))
    assert (read, type(read)) == (value, type(value))


def test_the_parameter_file_is_the_one_that_the_declaration_gives():
    assert (ROOT / "config" / "spatial_mllm.yaml").read_text() == yaml_text(), (
        "run: ./dev run python -m spatial_mllm_ros.ros.parameter_files README.md"
    )


def test_the_table_for_readers_is_the_one_that_the_declaration_gives():
    pages = [page for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if TABLE_BEGIN in page.read_text()]
    assert len(pages) == 1, "exactly one page has the table"
    text = pages[0].read_text()
    assert markdown_table() in text
    assert with_table(text) == text, f"run: ./dev run python -m spatial_mllm_ros.ros.parameter_files {pages[0].name}"


def test_the_folder_of_scenes_is_that_of_the_user_unless_one_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert NodeParameters().memory_root() == tmp_path / "spatial_mllm_ros" / "scenes"
    given = NodeParameters(memory=MemoryParameters(directory="/data/scenes"))
    assert given.memory_root() == Path("/data/scenes")


@pytest.mark.parametrize(
    ("depth", "pose_source", "origin"),
    [
        (False, "none", SceneOrigin("", False)),
        (True, "none", SceneOrigin("", False)),
        (False, "tf", SceneOrigin("map", False)),
        (True, "topic", SceneOrigin("map", True)),
    ],
)
def test_the_scene_frame_counts_with_poses_and_the_scale_is_measured_by_depth_with_poses(depth, pose_source, origin):
    source = InputParameters(depth=depth, pose_source=pose_source)
    assert NodeParameters(scene_frame="map", input=source).scene_origin() == origin
