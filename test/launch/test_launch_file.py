"""The launch file, loaded with stand-ins for the launch packages: those are not on the Python index."""

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.ros.environment import USER_CHOICES, share_directory, shared_memory_variables

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "spatial_mllm.launch.py"


@dataclass(frozen=True)
class LaunchDescription:
    entities: list


@dataclass(frozen=True)
class DeclareLaunchArgument:
    name: str
    default_value: str
    description: str


@dataclass(frozen=True)
class SetEnvironmentVariable:
    name: str
    value: str


@dataclass(frozen=True)
class LaunchConfiguration:
    variable_name: str

    def perform(self, context: dict) -> str:
        return context[self.variable_name]


@dataclass(frozen=True)
class OpaqueFunction:
    function: object


@dataclass(frozen=True)
class Node:
    package: str
    executable: str
    name: str
    namespace: object
    output: str
    parameters: list = field(default_factory=list)
    remappings: list = field(default_factory=list)


STAND_INS = {
    "launch": [LaunchDescription],
    "launch.actions": [DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable],
    "launch.substitutions": [LaunchConfiguration],
    "launch_ros": [],
    "launch_ros.actions": [Node],
}


class Described:
    """What the launch file describes, with the arguments given as on the command line."""

    def __init__(self, description: LaunchDescription, **given: str) -> None:
        by_type = {
            kind: [e for e in description.entities if isinstance(e, kind)]
            for kinds in STAND_INS.values()
            for kind in kinds
        }
        self.arguments = {a.name: a for a in by_type[DeclareLaunchArgument]}
        self.environment = {e.name: e.value for e in by_type[SetEnvironmentVariable]}
        self.values = {name: a.default_value for name, a in self.arguments.items()} | given
        nodes = [node for function in by_type[OpaqueFunction] for node in function.function(self.values)]
        assert len(nodes) == 1
        self.node = nodes[0]

    def text(self, value: object) -> str:
        """A value of the node as launch would substitute it."""
        if isinstance(value, list):
            return "".join(self.text(part) for part in value)
        return value.perform(self.values) if isinstance(value, LaunchConfiguration) else value

    @property
    def remappings(self) -> dict[str, str]:
        return {name: self.text(to) for name, to in self.node.remappings}


@pytest.fixture
def describe(monkeypatch):
    try:
        share_directory()
    except ConfigurationError as error:
        pytest.skip(str(error))
    for name, content in STAND_INS.items():
        module = ModuleType(name)
        for item in content:
            setattr(module, item.__name__, item)
        monkeypatch.setitem(sys.modules, name, module)

    def described(**given: str) -> Described:
        spec = importlib.util.spec_from_file_location("spatial_mllm_launch", LAUNCH_FILE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return Described(module.generate_launch_description(), **given)

    return described


@pytest.fixture
def no_choice_of_fast_dds(monkeypatch):
    for name in (*USER_CHOICES, "RMW_IMPLEMENTATION", "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)


def test_the_described_executable_is_installed_and_starts_the_node(describe):
    node = describe().node
    executable = share_directory().parents[1] / "lib" / node.package / node.executable
    assert os.access(executable, os.X_OK)
    assert "from spatial_mllm_ros.ros.node import main" in executable.read_text()


def test_every_argument_is_described_and_every_topic_of_the_node_is_an_argument(describe):
    described = describe()
    assert all(argument.description for argument in described.arguments.values())
    assert {"image", "camera_info", "depth", "camera_pose", "checkpoint", "params_file"} <= set(described.arguments)


def test_without_arguments_the_node_keeps_its_own_names_in_the_default_namespace(describe):
    described = describe()
    assert described.node.name == "spatial_node"
    assert described.text(described.node.namespace) == ""
    assert all(name == to for name, to in described.remappings.items())


def test_topics_given_are_remapped_from_relative_names_and_the_compressed_one_follows(describe):
    described = describe(image="/head/color/image_raw", depth="/head/depth/image", namespace="arm")
    assert described.remappings["image"] == "/head/color/image_raw"
    assert described.remappings["image/compressed"] == "/head/color/image_raw/compressed"
    assert described.remappings["depth"] == "/head/depth/image"
    assert described.remappings["camera_info"] == "camera_info"
    assert described.text(described.node.namespace) == "arm"
    assert not any(name.startswith(("/", "~")) for name in described.remappings)


def test_the_parameter_file_holds_every_parameter_of_the_node_with_its_default(describe):
    parameters = pytest.importorskip("spatial_mllm_ros.ros.parameters", reason="rclpy is not installed")
    described = describe()
    (file,) = (described.text(entry) for entry in described.node.parameters)
    assert flattened(yaml.safe_load(Path(file).read_text())["/**"]["ros__parameters"]) == {
        parameter.name: parameter.default for parameter in parameters.PARAMETERS
    }


def test_values_of_the_parameter_file_have_the_types_that_the_node_declares(describe):
    parameters = pytest.importorskip("spatial_mllm_ros.ros.parameters", reason="rclpy is not installed")
    file = describe().values["params_file"]
    values = flattened(yaml.safe_load(Path(file).read_text())["/**"]["ros__parameters"])
    # 1 and 1.0 are equal in Python, but rclpy refuses an integer for a parameter that is a double.
    assert {name: type(value) for name, value in values.items()} == {
        parameter.name: type(parameter.default) for parameter in parameters.PARAMETERS
    }


def flattened(nested: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}: parameter names as ROS makes them of a file."""
    flat = {}
    for key, value in nested.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def test_only_a_checkpoint_that_is_given_overrides_the_parameter_file(describe):
    assert len(describe().node.parameters) == 1
    described = describe(checkpoint="/models/spatial", params_file="/robot.yaml")
    assert [described.text(described.node.parameters[0]), described.node.parameters[1]] == [
        "/robot.yaml",
        {"checkpoint": "/models/spatial"},
    ]


def test_the_node_starts_with_the_shared_memory_profile(describe, no_choice_of_fast_dds):
    environment = describe().environment
    assert environment == shared_memory_variables({})
    assert len(environment) == 1
    assert all(Path(profile).is_file() for profile in environment.values())


def test_a_profile_of_the_user_is_left_alone(describe, no_choice_of_fast_dds, monkeypatch):
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/mine.xml")
    assert describe().environment == {}
