"""The environment variables that the ROS middleware needs before it starts, and where the installed files are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import spatial_mllm_ros
from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.checkpoints.bundled import PACKAGE, installed_share

#: Fast DDS 3 (ROS Kilted and later) reads the first, Fast DDS 2 (Jazzy, Humble) the second.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_WITH_FAST_DDS_2 = ("humble", "iron", "jazzy")
_WHEEL_OF_FAST_DDS_2 = "ros-fastrtps"  # the wheel of Fast DDS 3 is ros-fastdds
#: How a user chooses the transports of Fast DDS.
USER_CHOICES = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")


def share_directory() -> Path:
    """The installed ``share/spatial_mllm_ros``: ``launch``, ``config``, ``rviz``.

    Raises:
        ConfigurationError: the package is not installed.
    """
    share = installed_share()
    if share is not None:
        return share
    raise ConfigurationError(
        f"No share/{PACKAGE} belongs to {', '.join(spatial_mllm_ros.__path__)}; install the package (./dev install, "
        "pip, or colcon build and then source install/setup.bash)."
    )


def shared_memory_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable by which Fast DDS gets a shared-memory segment that camera images fit in.

    With its default segment (512 KiB) nearly all raw images on best-effort QoS are lost. Publisher and subscriber
    both need the profile.

    Args:
        environment: the variables already set; an empty one counts as not set (Fast DDS fails on it).

    Returns:
        Nothing where the user has chosen a profile, built-in transports or another middleware; else the one variable
        that the ROS distribution reads (with both, Kilted loads the profile twice and reports an error).

    Raises:
        ConfigurationError: the package is not installed.
    """
    other_middleware = "fastrtps" not in environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if other_middleware or any(environment.get(name) for name in USER_CHOICES):
        return {}
    profile = share_directory() / "config" / "fastdds_shared_memory.xml"
    new_spelling, old_spelling = PROFILE_VARIABLES
    return {old_spelling if _has_fast_dds_2(environment.get("ROS_DISTRO", "")) else new_spelling: str(profile)}


def _has_fast_dds_2(ros_distro: str) -> bool:
    if ros_distro:
        return ros_distro in _WITH_FAST_DDS_2
    try:  # no ROS is sourced: the wheels of the Python index, which set no ROS_DISTRO
        distribution(_WHEEL_OF_FAST_DDS_2)
    except PackageNotFoundError:
        return False
    return True


def use_shared_memory_profile() -> None:
    """Sets ``shared_memory_variables`` in this process; call it before ``rclpy.init()``.

    Raises:
        ConfigurationError: the package is not installed.
    """
    os.environ.update(shared_memory_variables(os.environ))
