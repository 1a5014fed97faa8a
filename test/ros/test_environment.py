import os
import re
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError

import pytest

import spatial_mllm_ros
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.ros import environment
from spatial_mllm_ros.ros.environment import (
    PROFILE_VARIABLES,
    share_directory,
    shared_memory_variables,
    use_shared_memory_profile,
)

BYTES_OF_A_720P_IMAGE = 1280 * 720 * 3


@pytest.fixture
def share(tmp_path, monkeypatch):
    """An installed package below tmp_path, laid out as under a ROS prefix."""
    package = tmp_path / "lib" / "python3.12" / "site-packages" / "spatial_mllm_ros"
    package.mkdir(parents=True)
    folder = tmp_path / "share" / "spatial_mllm_ros"
    folder.mkdir(parents=True)
    (folder / "package.xml").write_text("<package/>")
    monkeypatch.setattr(spatial_mllm_ros, "__path__", [str(package)])
    return folder


def test_share_directory_is_found_from_where_the_package_is_installed(share):
    assert share_directory() == share


def test_share_directory_is_found_in_debian_layout_and_from_the_second_folder_of_the_package(share, monkeypatch):
    debian = share.parents[1] / "local" / "lib" / "python3.10" / "dist-packages" / "spatial_mllm_ros"
    monkeypatch.setattr(spatial_mllm_ros, "__path__", ["/nowhere/checkout/spatial_mllm_ros", str(debian)])
    assert share_directory() == share


def test_a_package_that_is_not_installed_is_an_error_that_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(spatial_mllm_ros, "__path__", [str(tmp_path)])
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path)) + ".*dev install"):
        share_directory()


@pytest.fixture
def wheels(monkeypatch):
    """Says which wheels are installed, instead of those that are."""

    def installed(*names: str) -> None:
        def distribution(name: str) -> None:
            if name not in names:
                raise PackageNotFoundError(name)

        monkeypatch.setattr(environment, "distribution", distribution)

    return installed


@pytest.mark.parametrize(
    ("wheel", "variable"),
    [("ros-fastdds", "FASTDDS_DEFAULT_PROFILES_FILE"), ("ros-fastrtps", "FASTRTPS_DEFAULT_PROFILES_FILE")],
)
def test_without_a_sourced_ros_the_wheel_of_fast_dds_decides_the_spelling(share, wheels, wheel, variable):
    wheels(wheel)
    assert set(shared_memory_variables({})) == {variable}


@pytest.mark.parametrize(
    ("distro", "variable"),
    [
        ({"ROS_DISTRO": "kilted"}, "FASTDDS_DEFAULT_PROFILES_FILE"),
        ({"ROS_DISTRO": "jazzy"}, "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ({"ROS_DISTRO": "humble"}, "FASTRTPS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_the_profile_is_named_in_the_spelling_of_the_installed_fast_dds_alone(share, distro, variable):
    assert shared_memory_variables(distro) == {variable: str(share / "config" / "fastdds_shared_memory.xml")}


@pytest.mark.parametrize(
    "choice",
    [
        {"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"},
        {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"},
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
    ],
)
def test_a_choice_of_the_user_is_left_alone(share, choice):
    assert shared_memory_variables(choice) == {}


def test_an_empty_variable_is_no_choice_since_fast_dds_fails_on_it(share, wheels):
    wheels("ros-fastdds")
    variables = shared_memory_variables({"FASTDDS_DEFAULT_PROFILES_FILE": "", "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"})
    assert set(variables) == {PROFILE_VARIABLES[0]}


def test_the_variables_are_set_in_this_process_and_those_of_the_user_stay(share, wheels, monkeypatch):
    wheels("ros-fastdds")
    monkeypatch.setattr(os, "environ", {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"})
    use_shared_memory_profile()
    assert os.environ == {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"}
    monkeypatch.setattr(environment.os, "environ", {"HOME": "/home/robot"})
    use_shared_memory_profile()
    assert set(environment.os.environ) == {"HOME", PROFILE_VARIABLES[0]}


def test_the_installed_profile_has_a_segment_for_several_images_and_reaches_other_machines():
    try:
        profile = share_directory() / "config" / "fastdds_shared_memory.xml"
    except ConfigurationError as error:
        pytest.skip(str(error))
    xml = {"dds": "http://www.eprosima.com"}
    root = ElementTree.parse(profile).getroot()
    transports = {t.findtext("dds:type", namespaces=xml): t for t in root.iterfind(".//dds:transport_descriptor", xml)}
    assert set(transports) == {"SHM", "UDPv4"}
    assert int(transports["SHM"].findtext("dds:segment_size", namespaces=xml)) > 8 * BYTES_OF_A_720P_IMAGE
    participant = root.find(".//dds:participant", xml)
    assert participant.get("is_default_profile") == "true"
    used = [e.text for e in participant.iterfind(".//dds:userTransports/dds:transport_id", xml)]
    assert used == [t.findtext("dds:transport_id", namespaces=xml) for t in transports.values()]
    assert participant.findtext(".//dds:useBuiltinTransports", namespaces=xml) == "false"
