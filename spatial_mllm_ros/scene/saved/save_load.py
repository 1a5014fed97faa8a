"""Saves a scene to disk and loads it: saved whole or not at all, loaded only when every byte of it is right.

A saved scene is one folder: ``manifest.json`` (format, version, settings, frames with their poses, SHA-256 of every
file and of itself), ``image_STAMP.jpg``, ``depth_STAMP.png``, ``voxels.npy``, and the point maps of the anchors
(``points_STAMP.npy``, ``confidence_STAMP.npy``). Nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spatial_mllm_ros.encoders.base import ScaleSource
from spatial_mllm_ros.errors import SpatialMllmError, StorageError
from spatial_mllm_ros.provenance import code_version
from spatial_mllm_ros.scene.config import SceneConfig
from spatial_mllm_ros.scene.map import selection_of
from spatial_mllm_ros.scene.records import Selection
from spatial_mllm_ros.scene.saved.content import SceneContent
from spatial_mllm_ros.scene.saved.folder import SavedFolder, checked_path, replace_folder
from spatial_mllm_ros.scene.saved.format import FORMAT_NAME, VERSION, read_content, write_content
from spatial_mllm_ros.scene.scene import Scene
from spatial_mllm_ros.storage import user_state


@dataclass(frozen=True)
class SceneOrigin:
    """What the run that saves or loads takes its geometry from; a loaded scene must go on in the same way.

    Attributes:
        scene_frame: name of the frame of reference of the poses, such as "map"; "" where nothing names it.
        measures: every frame has depth, pose and intrinsics, so that lengths are metres; None where it is not known.
    """

    scene_frame: str = ""
    measures: bool | None = None


@dataclass(frozen=True)
class SavedScene:
    """What a folder holds, every file of it checked.

    Attributes:
        folder: where it is.
        version, code_version: of the format, and of this package when it wrote it.
        ring_frames, keyframes: frames, by where they were held.
        waiting: frames that were waiting for the encoder when it was saved; they are not in it.
        nbytes: of all files.
        pixel_bytes: that ring and keyframes take in memory.
        first_stamp_ns, last_stamp_ns: of its frames.
        image_sizes_px: (width, height) of its frames.
        posed_frames, depth_frames: frames that have a pose of the robot, that have depth.
        selection: the evidence set with its coverage, under the settings that it was saved with.
        origin: of the run that saved it.
        encoder: name of the spatial encoder that made the geometry.
        files: name -> SHA-256, as verified.
    """

    folder: Path
    version: int
    code_version: str
    ring_frames: int
    keyframes: int
    waiting: int
    nbytes: int
    pixel_bytes: int
    first_stamp_ns: int
    last_stamp_ns: int
    image_sizes_px: tuple[tuple[int, int], ...]
    posed_frames: int
    depth_frames: int
    selection: Selection
    origin: SceneOrigin
    encoder: str
    files: Mapping[str, str]

    @property
    def frames(self) -> int:
        """Frames in all."""
        return self.ring_frames + self.keyframes


def default_root() -> Path:
    """Where scenes are kept unless something else is configured: under XDG_STATE_HOME, otherwise ~/.local/state."""
    return user_state() / "scenes"


def save_scene(
    scene: Scene, directory: str | os.PathLike[str], *, root: Path | None = None, origin: SceneOrigin | None = None
) -> SavedScene:
    """Writes what ``scene`` holds to a folder of its own; a saved scene that is there is replaced, whole.

    Frames that wait for the encoder are left out; their number is in the result. Other threads go on using the scene.

    Args:
        directory: absolute path; it must not exist yet, or hold a saved scene.
        root: the folder must lie below this one, which is made if it does not exist; None for anywhere.
        origin: of this run, for the check when it is loaded.

    Raises:
        StorageError: ``path``, ``occupied``, ``busy``, ``empty``, ``disk``, ``permission``; an earlier saved scene is
            there as it was.
    """
    return write_scene(scene.content(), scene.config, scene.encoder_name, directory, root=root, origin=origin)


def write_scene(
    content: SceneContent,
    config: SceneConfig,
    encoder: str,
    directory: str | os.PathLike[str],
    *,
    root: Path | None = None,
    origin: SceneOrigin | None = None,
) -> SavedScene:
    """``save_scene`` for what a scene held at one moment, so that the writing can happen in another thread."""
    if root is not None:
        _make_root(root)
    place = checked_path(directory, root)
    if not content.frames:
        raise StorageError("empty", "The scene holds no frame yet; let the camera see something, then save it.")
    origin = origin or SceneOrigin()

    def write(folder: Path) -> dict[str, Any]:
        return {
            "version": VERSION,
            "code_version": code_version(),
            "encoder": encoder,
            "origin": {"scene_frame": origin.scene_frame, "measures": origin.measures},
            "settings": asdict(config),
            "waiting": content.waiting,
            "scene": write_content(content, folder),
        }

    replace_folder(place, FORMAT_NAME, write)
    folder = SavedFolder(place, format_name=FORMAT_NAME, version=VERSION)
    return _described(folder, content)


def load_scene(
    scene: Scene, directory: str | os.PathLike[str], *, root: Path | None = None, origin: SceneOrigin | None = None
) -> tuple[SavedScene, int]:
    """Puts a saved scene in the place of what ``scene`` holds; returns what it was and the number of its new epoch.

    See ``Scene.restore`` for how it goes on. Until all of it has been read and checked, nothing changes.

    Args:
        directory: absolute path of a folder that ``save_scene`` wrote.
        root: the folder must lie below this one; None for anywhere.
        origin: of this run.

    Raises:
        StorageError: ``path``, ``missing``, ``truncated``, ``tampered``, ``foreign``, ``newer``, ``permission``,
            ``settings``; the scene is as it was.
    """
    saved, content = read_scene(directory, root=root, origin=origin, config=scene.config)
    return saved, scene.restore(content, f"the scene saved in {saved.folder} takes its place")


def read_scene(
    directory: str | os.PathLike[str],
    *,
    root: Path | None = None,
    origin: SceneOrigin | None = None,
    config: SceneConfig | None = None,
) -> tuple[SavedScene, SceneContent]:
    """Reads and checks a saved scene, every file of it; ``Scene.restore`` takes the content.

    Args:
        directory, root: as for ``load_scene``.
        origin: of the run that wants to go on with it; None for no such check.
        config: of that run; its bounds are checked before pictures are decoded. None for no bounds.

    Raises:
        StorageError: as ``load_scene``.
    """
    if root is not None and not root.is_dir():
        raise StorageError("missing", f"There is no folder {root}, so no scene has been saved there yet.")
    folder = SavedFolder(checked_path(directory, root), format_name=FORMAT_NAME, version=VERSION)
    try:
        if origin is not None:
            _refuse_other_origin(folder.manifest, origin)
        most = None if config is None else config.ring_bytes + config.keyframe_bytes
        content = read_content(folder.manifest["scene"], folder.read, most)
        for name in folder.manifest["files"].keys() - folder.used:
            folder.read(name)
        return _described(folder, content), content
    except StorageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, SpatialMllmError) as error:
        raise StorageError(
            "tampered",
            f"{folder.folder / 'manifest.json'} or a file of it is not as version {VERSION} has it "
            f"({type(error).__name__}: {error}). Use another copy, or save the scene again.",
        ) from error


def _described(folder: SavedFolder, content: SceneContent) -> SavedScene:
    manifest = folder.manifest
    frames = content.frames
    stamps_ns = sorted(frame.stamp_ns for frame in frames)
    known = {field.name for field in fields(SceneConfig)}  # a later release of this version may have written more
    config = SceneConfig(**{name: value for name, value in manifest["settings"].items() if name in known})
    origin = manifest["origin"]
    return SavedScene(
        folder=folder.folder,
        version=manifest["version"],
        code_version=str(manifest["code_version"]),
        ring_frames=len(content.ring),
        keyframes=len(content.keyframes),
        waiting=int(manifest["waiting"]),
        nbytes=folder.nbytes,
        pixel_bytes=sum(frame.nbytes for frame in frames),
        first_stamp_ns=stamps_ns[0],
        last_stamp_ns=stamps_ns[-1],
        image_sizes_px=tuple(sorted({(frame.rgb.shape[1], frame.rgb.shape[0]) for frame in frames})),
        posed_frames=sum(frame.scene_from_cam is not None for frame in frames),
        depth_frames=sum(frame.depth_m is not None for frame in frames),
        selection=selection_of(content, config),
        origin=SceneOrigin(str(origin["scene_frame"]), origin["measures"]),
        encoder=str(manifest["encoder"]),
        files={name: entry["sha256"] for name, entry in manifest["files"].items()},
    )


def _refuse_other_origin(manifest: Mapping[str, Any], origin: SceneOrigin) -> None:
    scene, saved_frame = manifest["scene"], str(manifest["origin"]["scene_frame"])
    posed = any(entry["scene_from_cam"] is not None for entry in scene["frames"])
    if posed and origin.scene_frame and saved_frame and origin.scene_frame != saved_frame:
        raise StorageError(
            "settings",
            f"The saved scene lies in the frame {saved_frame[:80]!r} and this run's scene_frame is "
            f"{origin.scene_frame!r}; set scene_frame to {saved_frame[:80]!r}.",
        )
    source = None if scene["scale_source"] is None else ScaleSource(scene["scale_source"])
    if origin.measures and source is not None and not source.is_measured:
        raise StorageError(
            "settings",
            f"Nothing measured the saved scene (its scale source is {source.value!r}) and this run "
            "measures by depth and poses; the two cannot be joined. Load it with input.depth false and "
            "input.pose_source 'none', or start anew.",
        )


def _make_root(root: Path) -> None:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "permission", f"The folder of scenes {root} cannot be made: {error.strerror}. Choose another one."
        ) from error
