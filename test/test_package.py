"""The package as a whole: its metadata agree, its interfaces are built, and imports go one way only."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "spatial_mllm_ros"
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))

# Which rooms a room may use besides itself; "encoders.base" admits that module only. Nothing below imports anything
# above it, and nothing but `ros` (and, when a command runs, the command line) knows of ROS.
ALLOWED = {
    "__init__": (),
    "errors": (),
    "files": (),
    "geometry": ("errors",),
    "frames": ("errors", "geometry"),
    "models": ("errors", "geometry"),
    "engines": ("errors", "files", "models"),
    "encoders": ("errors", "frames", "geometry", "models"),
    "scene": ("errors", "files", "frames", "geometry", "encoders.base"),
    "answering": ("errors", "frames", "geometry", "models", "engines", "encoders", "scene"),
    "datasets": ("errors", "frames", "geometry", "answering.question"),
    "training": ("errors", "frames", "geometry", "models", "encoders", "scene", "answering", "datasets"),
    "evaluation": ("errors", "frames", "geometry", "models", "engines", "encoders", "scene", "answering", "datasets"),
    "ros": (
        *("errors", "files", "frames", "geometry", "models", "engines", "encoders", "scene", "answering", "datasets"),
        "evaluation",
    ),
    "cli": (
        *("errors", "frames", "geometry", "models", "engines", "encoders", "scene", "answering", "datasets"),
        *("training", "evaluation", "ros"),
    ),
}
INTERFACES = ("msg", "srv", "action")
# What the node never loads, directly or through anything that it imports.
NOT_IN_THE_NODE = ("training", "datasets", "evaluation", "cli")
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


def inside(name: str, allowed: str) -> bool:
    return f"{name}.".startswith(f"{PACKAGE}.{allowed}.")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def canonical(requirement: str) -> str:
    """`ros-rclpy[fastrtps]>=9; marker` -> `ros-rclpy`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


# -- import direction --------------------------------------------------------------------------------------------------


def test_every_room_has_its_allowed_imports_stated():
    assert {room_of(module_name(path)) for path in MODULES} <= set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_room_imports_only_the_rooms_below_it(path):
    room = room_of(module_name(path))
    may = {room, *ALLOWED[room], *(INTERFACES if room == "ros" else ())}
    wrong = [
        f"line {line}: {name}"
        for name, line in imports_of(path)
        if name.startswith(f"{PACKAGE}.") and not any(inside(name, allowed) for allowed in may)
    ]
    assert not wrong, f"{module_name(path)} imports from rooms that {room} may not use"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(module_name(p)) != "ros"], ids=module_name)
def test_only_the_ros_room_imports_ros(path):
    wrong = [f"line {line}: {name}" for name, line in imports_of(path) if ROS_PACKAGES.fullmatch(name.split(".")[0])]
    assert not wrong


def test_the_node_loads_neither_training_nor_datasets_nor_evaluation():
    by_name = {module_name(path): path for path in MODULES}
    reached, waiting = {}, [f"{PACKAGE}.ros.node"]
    while waiting:
        name = waiting.pop()
        for imported, _ in imports_of(by_name[name]):
            # "from a.b import c": c may be a module, or something in the module a.b.
            for module in (imported, imported.rpartition(".")[0]):
                if module in by_name and module not in reached:
                    reached[module] = name
                    waiting.append(module)
    assert f"{PACKAGE}.frames.frame" in reached, "the walk over the node's imports leads nowhere"
    assert not {name: by for name, by in reached.items() if room_of(name) in NOT_IN_THE_NODE}


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


def test_everything_that_is_installed_is_pinned_once_per_python_version():
    pinned = [
        line.split("==")[0] + line.partition(";")[2]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(pinned) == len(set(pinned))
    names = {canonical(line) for line in pinned}
    python = project()
    wanted = [
        *python["build-system"]["requires"],
        *python["project"]["dependencies"],
        *(name for extra in python["project"]["optional-dependencies"].values() for name in extra),
    ]
    assert {canonical(requirement) for requirement in wanted} <= names
