"""The pip build, for machines without a ROS installation; where there is one, colcon runs CMakeLists.txt itself.

Name, version and dependencies stand in pyproject.toml. This file runs the CMake build against the ROS wheels of the
Python index: `pip install .` puts its install tree into the wheel, `pip install --no-build-isolation -e .` installs
it, as links, straight into the virtual environment.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).resolve().parent
PYTHON_INSTALL_DIR = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def ros_prefix() -> Path:
    """The folder that the ROS wheels are installed under, laid out like /opt/ros/<distribution>."""
    spec = importlib.util.find_spec("ament_package")
    if spec is None or spec.origin is None:
        raise SystemExit("The ROS wheels are not installed: they are listed in pyproject.toml under [build-system].")
    return Path(spec.origin).parents[4]  # <prefix>/lib/pythonX.Y/site-packages/ament_package/__init__.py


def cmake_install(build: Path, prefix: Path, *options: str) -> None:
    """Configures, builds and installs CMakeLists.txt into `prefix`."""
    ros = ros_prefix()
    # The wheels do not find their own type supports without AMENT_PREFIX_PATH.
    environment = os.environ | {"AMENT_PREFIX_PATH": str(ros)}
    configure = [
        "cmake", "-S", SOURCE, "-B", build, "-G", "Ninja",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        f"-DCMAKE_PREFIX_PATH={ros}",
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        f"-DCMAKE_PROJECT_INCLUDE={SOURCE / 'cmake' / 'pypi_wheels.cmake'}",
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DPYTHON_INSTALL_DIR={PYTHON_INSTALL_DIR}",
        *options,
    ]  # fmt: skip
    subprocess.run(configure, check=True, env=environment)
    subprocess.run(["cmake", "--build", build, "--target", "install"], check=True, env=environment)


class CMakeBuild(build_ext):
    """Runs the CMake build in the place of a compiler."""

    def run(self) -> None:
        if self.editable_mode:
            cmake_install(
                SOURCE / "build" / "editable",
                Path(sys.prefix),
                "-DAMENT_CMAKE_SYMLINK_INSTALL=ON",
                "-DPYTHON_MODULES_IN_PLACE=ON",
            )
            # pip would take this metadata for an older version of the package, and uninstall what it lists.
            for metadata in (Path(sys.prefix) / PYTHON_INSTALL_DIR).glob("spatial_mllm_ros-*.egg-info"):
                shutil.rmtree(metadata)
            return
        shutil.rmtree(self.build_temp, ignore_errors=True)  # its cache would point into a deleted build environment
        build = Path(self.build_temp).resolve()
        stage = build / "stage"
        cmake_install(build / "cmake", stage)
        for path in sorted(path for path in stage.rglob("*") if path.is_file()):
            folder = path.parent.relative_to(stage)
            # pip writes metadata and commands itself; a second metadata folder would break its uninstall.
            if path.suffix != ".pyc" and not folder.name.endswith(".egg-info") and folder.parts[:1] != ("bin",):
                self.distribution.data_files.append((str(folder), [str(path)]))

    def get_outputs(self) -> list[str]:
        return []  # what was built is in data_files

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(
    packages=[],
    data_files=[],
    ext_modules=[Extension("spatial_mllm_ros", sources=[])],  # marks the wheel as bound to this platform
    cmdclass={"build_ext": CMakeBuild},
)
