"""What a robot installs: the node runs on the project's dependencies alone, without what only the tools need."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spatial_mllm_ros.errors import TOOL_PACKAGES

from .ros_processes import NODE

PROJECT, PACKAGE = "spatial-mllm-ros", "spatial_mllm_ros"
PREFIX = Path(sys.prefix)
SITE_PACKAGES = Path(sysconfig.get_path("purelib")).relative_to(PREFIX)
# torch depends on jinja2 for torch.compile() alone; transformers cannot be imported without tqdm.
LEFT_OUT = TOOL_PACKAGES - {"tqdm"}


def requirements_of(name: str, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            yield canonicalize_name(requirement.name), requirement.extras


def names_of_the_robots_distributions() -> set[str]:
    """The project and what it depends on, directly or through others, without any extra of the project."""
    done: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, set[str]]] = [(PROJECT, set())]
    while waiting:
        name, extras = waiting.pop()
        if name not in LEFT_OUT and (name, frozenset(extras)) not in done:
            done.add((name, frozenset(extras)))
            waiting.extend(requirements_of(name, extras))
    return {name for name, _ in done}


def installed_paths() -> Iterator[Path]:
    """What to link, relative to the prefix: whole packages, or files where other distributions own a part."""
    names = names_of_the_robots_distributions()
    owners = {
        top: {canonicalize_name(owner) for owner in found}
        for top, found in importlib.metadata.packages_distributions().items()
    }
    for name in names:
        for file in importlib.metadata.distribution(name).files or ():
            path = Path(os.path.normpath(SITE_PACKAGES / file))
            top = path.relative_to(SITE_PACKAGES).parts[0] if SITE_PACKAGES in path.parents else ""
            if owners.get(top, set()) and owners[top] <= names:
                yield SITE_PACKAGES / top if (PREFIX / SITE_PACKAGES / top).is_dir() else path
            elif path.parts[0] not in ("..", "bin", "include"):
                yield path
    # Interfaces and links that the CMake build installs belong to no distribution in a development install.
    for pattern in ("lib/{}", "lib/lib{}__*", f"{SITE_PACKAGES}/{{}}", "share/{}", "share/ament_index/*/*/{}"):
        yield from (path.relative_to(PREFIX) for path in PREFIX.glob(pattern.format(PACKAGE)))


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Path:
    """A virtual environment with links to the installed files of the robot's distributions, and to nothing else."""
    try:
        paths = set(installed_paths())
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed by pip; run ./dev install")
    root = tmp_path_factory.mktemp("robot") / "venv"
    venv.create(root, symlinks=True, with_pip=False)
    for path in paths:
        if (PREFIX / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(PREFIX / path)
    return root


def environment_of(robot: Path) -> dict[str, str]:
    """The variables of this process, with the robot's installation in the place of this one."""
    here = ("VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    kept = {name: value for name, value in os.environ.items() if name not in here}
    return kept | {"AMENT_PREFIX_PATH": str(robot)}


def in_the_robot(robot: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [robot / "bin" / "python", *arguments]
    return subprocess.run(command, env=environment_of(robot), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", sorted(LEFT_OUT))
def test_the_robot_has_no_package_of_the_tools(robot, package):
    done = in_the_robot(robot, "-c", f"import {package}")
    assert f"No module named '{package}'" in done.stderr


def test_the_node_is_configured_where_only_the_robots_packages_are_installed(
    robot, start_process, random_checkpoint, ros_client
):
    command = [str(robot / "bin" / "python"), *NODE[1:], "-p", f"checkpoint:={random_checkpoint}"]
    node = start_process(command, environment_of(robot))
    ros_client.until(
        lambda: "Active: ask on" in node.log or node.process.poll() is not None, "the node is configured and active"
    )
    assert node.process.poll() is None, node.log
    assert node.end() == 0, node.log


def test_a_command_of_the_tools_names_the_extra_that_it_needs(robot, tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((60, 84, 3), np.uint8))
    command = ("-m", "spatial_mllm_ros.cli", "replay", str(tmp_path), "--out", str(tmp_path / "out"))
    done = in_the_robot(robot, *command)
    assert done.returncode == 1
    assert "pip install 'spatial-mllm-ros[tools]'" in done.stderr
    assert "Traceback" not in done.stderr
