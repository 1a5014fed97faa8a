"""The package as a whole: its metadata agree, its interfaces are built, and imports go one way only."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from spatial_mllm_ros.errors import TOOL_PACKAGES

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "spatial_mllm_ros"
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))

# The rooms in their order: a room imports only what stands above it. The robot's rooms are the node's import closure;
# tools may use the robot and the tools named before them, and no room of the robot uses a tool.
ROBOT = (
    *("__init__", "errors", "storage", "provenance"),
    *("geometry", "frames", "models", "engines", "encoders", "scene", "answering", "ros"),
)
TOOLS = (
    *("recordings", "scene_questions", "rooms", "report", "scoring", "training", "replay", "playback", "verification"),
    *("benchmarks", "cli"),
)
ORDER = (*ROBOT, *TOOLS)
KNOWS_ROS = ("ros", "playback", "benchmarks")
# Only the node's process and what needs a ROS graph may use the room `ros`.
USES_THE_NODE = ("ros", "playback", "benchmarks", "cli")
INTERFACES = ("msg", "srv", "action")
ROS_PACKAGES = re.compile(
    r"rclpy|cv_bridge|message_filters|launch|launch_ros|launch_testing|ament_index_python|tf2_\w+|\w+_(msgs|srvs)|"
    r"(builtin|\w+)_interfaces|unique_identifier_msgs"
)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of what a file imports, anywhere in it, with the line."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def room_of(name: str) -> str:
    """`spatial_mllm_ros.frames.frame.Frame` -> `frames`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def closure(start: str) -> dict[str, str]:
    """Every module of the package that `start` loads, directly or through others, with one that imports it."""
    by_name = {module_name(path): path for path in MODULES}
    reached, waiting = {}, [start]
    while waiting:
        name = waiting.pop()
        for imported, _ in imports_of(by_name[name]):
            # "from a.b import c": c may be a module, or something in the module a.b.
            for module in (imported, imported.rpartition(".")[0]):
                if module in by_name and module not in reached:
                    reached[module] = name
                    waiting.append(module)
    return reached


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def canonical(requirement: str) -> str:
    """`ros-rclpy[fastrtps]>=9; marker` -> `ros-rclpy`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


# -- import direction --------------------------------------------------------------------------------------------------


def test_every_room_has_its_place_in_the_order():
    assert {room_of(module_name(path)) for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_room_imports_only_what_stands_above_it(path):
    room = room_of(module_name(path))
    may = set(ORDER[: ORDER.index(room) + 1])
    may |= set(INTERFACES) if room in KNOWS_ROS else set()
    may -= set() if room in USES_THE_NODE else {"ros"}
    wrong = [
        f"line {line}: {name}"
        for name, line in imports_of(path)
        if name.startswith(f"{PACKAGE}.") and room_of(name) not in may
    ]
    assert not wrong, f"{module_name(path)} imports from rooms that {room} may not use"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(module_name(p)) not in KNOWS_ROS], ids=module_name)
def test_only_rooms_that_know_ros_import_it(path):
    wrong = [f"line {line}: {name}" for name, line in imports_of(path) if ROS_PACKAGES.fullmatch(name.split(".")[0])]
    assert not wrong


def test_the_robot_imports_no_package_of_the_tools():
    robot = [path for path in MODULES if room_of(module_name(path)) in ROBOT]
    wrong = [
        f"{module_name(path)} line {line}: {name}"
        for path in robot
        for name, line in imports_of(path)
        if name.split(".")[0] in TOOL_PACKAGES
    ]
    assert not wrong


def test_the_packages_of_the_tools_are_those_of_the_extra():
    extra = {canonical(requirement) for requirement in project()["project"]["optional-dependencies"]["tools"]}
    assert {name for name in extra if not name.startswith("ros-")} == TOOL_PACKAGES


def test_the_nodes_imports_are_the_robots_rooms_and_nothing_else():
    reached = closure(f"{PACKAGE}.ros.node")
    assert f"{PACKAGE}.frames.frame" in reached, "the walk over the node's imports leads nowhere"
    assert not {name: by for name, by in reached.items() if room_of(name) not in (*ROBOT, *INTERFACES)}


def test_the_node_does_not_load_what_only_offline_sampling_needs():
    assert not {name: by for name, by in closure(f"{PACKAGE}.ros.node").items() if ".scene.offline." in f"{name}."}


def test_no_module_imports_itself_through_others():
    names = {module_name(path) for path in MODULES}
    imports = {
        module_name(path): {
            name if name in names else name.rpartition(".")[0]
            for name, _ in imports_of(path)
            if {name, name.rpartition(".")[0]} & names
        }
        for path in MODULES
    }
    left = dict(imports)
    while free := [name for name, needed in left.items() if not needed & set(left)]:
        for name in free:
            del left[name]
    assert not left, "these modules are in a circle, or need one"


def test_the_command_line_starts_without_loading_models_or_ros():
    script = (
        "import sys, spatial_mllm_ros.cli; print([m for m in ('torch', 'transformers', 'rclpy') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


# -- metadata ----------------------------------------------------------------------------------------------------------


def test_package_xml_and_pyproject_agree():
    xml, python = package_xml(), project()["project"]
    assert xml.get("format") == "3"
    assert xml.findtext("name") == PACKAGE
    assert canonical(python["name"]) == canonical(PACKAGE)
    assert xml.findtext("version") == python["version"]
    assert xml.findtext("license") == python["license"]["text"] == "Apache-2.0"
    maintainer = xml.find("maintainer")
    assert {"name": maintainer.text, "email": maintainer.get("email")} in python["maintainers"]
    assert xml.findtext("export/build_type") == "ament_cmake"


def test_the_licence_file_is_the_licence_of_package_xml():
    licence = (ROOT / package_xml().find("license").get("file")).read_text()
    assert "Apache License\n                           Version 2.0" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_changelog_has_an_entry_for_this_version():
    assert f"## {project()['project']['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_ros_packages_that_are_imported_are_dependencies_in_package_xml():
    imported = {name.split(".")[0] for path in MODULES for name, _ in imports_of(path)}
    imported |= {name.split(".")[0] for path in (ROOT / "launch").glob("*.py") for name, _ in imports_of(path)}
    needed = {name for name in imported if ROS_PACKAGES.fullmatch(name)}
    # tf2_ros is the C++ package; its Python module is released as tf2_ros_py. rcl_interfaces comes with rclpy.
    needed = {{"tf2_ros": "tf2_ros_py"}.get(name, name) for name in needed} - {"rcl_interfaces"}
    declared = {e.text for e in package_xml() if e.tag in ("depend", "exec_depend")}
    assert needed <= declared


def test_every_interface_file_is_built_with_the_packages_that_it_names():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    built = set(re.findall(r"(?:msg|srv|action)/\w+\.(?:msg|srv|action)", cmake))
    files = [path for kind in INTERFACES for path in (ROOT / kind).iterdir()]
    assert built == {str(path.relative_to(ROOT)) for path in files}
    used = {package for path in files for package in re.findall(r"^(\w+)/\w+", path.read_text(), re.MULTILINE)}
    assert used <= set(re.search(r"DEPENDENCIES (.*)", cmake).group(1).split())
    assert used <= {e.text for e in package_xml().findall("depend")}


@pytest.mark.parametrize(
    "path", sorted(p for kind in INTERFACES for p in (ROOT / kind).iterdir()), ids=lambda p: p.name
)
def test_every_interface_is_importable_and_is_the_one_of_the_source(path):
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    interfaces = pytest.importorskip(f"{PACKAGE}.{path.parent.name}", reason="the interfaces are not built")
    interface = getattr(interfaces, path.stem)
    parts = {"msg": [interface]}
    parts["srv"] = [getattr(interface, n, None) for n in ("Request", "Response")]
    parts["action"] = [getattr(interface, n, None) for n in ("Goal", "Result", "Feedback")]
    sections = re.split(r"^---$", path.read_text(), flags=re.MULTILINE)
    for section, part in zip(sections, parts[path.parent.name], strict=True):
        fields = re.findall(r"^[\w/]+(?:\[\w*\])? +(\w+)(?!.*=[^#]*$)\s*(?:#.*)?$", section, re.MULTILINE)
        assert fields == list(part.get_fields_and_field_types())


def pins(name: str) -> list[str]:
    """The lines of a file of constraints."""
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-c constraints.txt"))]


@pytest.mark.parametrize("distribution", ["jazzy", "kilted"])
def test_everything_that_is_installed_is_pinned_once_per_python_version(distribution):
    of_ros, others = pins(f"constraints-{distribution}.txt"), pins("constraints.txt")
    assert "-c constraints.txt" in (ROOT / f"constraints-{distribution}.txt").read_text().splitlines()
    assert all(line.startswith("ros-") for line in of_ros)
    assert not any(line.startswith("ros-") for line in others)
    pinned = [line.split("==")[0] + line.partition(";")[2] for line in of_ros + others]
    assert len(pinned) == len(set(pinned))
    names = {canonical(line) for line in pinned}
    python = project()
    wanted = [
        *python["build-system"]["requires"],
        *python["project"]["dependencies"],
        *(name for extra in python["project"]["optional-dependencies"].values() for name in extra),
    ]
    assert {canonical(requirement) for requirement in wanted} <= names
