"""Turns a scene into a manifest and files, and back; version 1 of the format.

What is lost: pictures become JPEG (quality 95), depth is rounded to whole millimetres and ends at 65.534 m.
Everything else (poses, intrinsics, voxels, point maps of the anchors) comes back bit by bit.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spatial_mllm_ros.encoders.base import Anchor, FrameGeometry, ScaleSource
from spatial_mllm_ros.errors import StorageError
from spatial_mllm_ros.frames.codec import decode_compressed_color, depth_from_millimetres, validate_compressed
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.frames.image_headers import read_png_header
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.scene.records import GridState, PlacedFrame
from spatial_mllm_ros.scene.saved.content import SceneContent
from spatial_mllm_ros.scene.voxels import MAX_LEVEL

FORMAT_NAME = "spatial_mllm_scene"
VERSION = 1
JPEG_QUALITY = 95
_MOST_MM = 65_534  # 65535 means no reading, as in 16UC1 images
_VOXELS = "voxels.npy"
_NO_KEYS = np.empty(0, np.int64)
_RING, _KEYFRAME, _ANCHOR = "ring", "keyframe", "anchor"


def write_content(content: SceneContent, folder: Path) -> dict[str, Any]:
    """Writes the files of ``content`` into ``folder``, and returns what the manifest says of them.

    Raises:
        OSError: a file cannot be written.
    """
    placed = {p.stamp_ns: p for p in content.placed}
    held = {frame.stamp_ns for frame in content.frames}
    frames = [_frame_entry(frame, placed[frame.stamp_ns], _KEYFRAME, folder) for frame in content.keyframes]
    frames += [_frame_entry(frame, placed.get(frame.stamp_ns), _RING, folder) for frame in content.ring]
    frames += [_frame_entry(a.frame, None, _ANCHOR, folder) for a in content.anchors if a.frame.stamp_ns not in held]
    anchors = [_anchor_entry(a, folder) for a in content.anchors]
    keys = [placed[f.stamp_ns].fine_keys for f in content.frames if f.stamp_ns in placed]
    keys += [a.fine_keys for a in content.anchors]
    (folder / _VOXELS).write_bytes(_npy(np.concatenate([_NO_KEYS, *keys])))
    return {
        "epoch": content.epoch,
        "scale_source": None if content.scale_source is None else content.scale_source.value,
        "grid": None if content.grid is None else asdict(content.grid),
        "newest_placed_ns": content.newest_placed_ns,
        "frames": frames,
        "anchors": anchors,
    }


def read_content(scene: Mapping[str, Any], read: Callable[[str], bytes], most_bytes: int | None = None) -> SceneContent:
    """The reverse of ``write_content``.

    Args:
        scene: what that returned, out of a manifest that has been checked.
        read: a file's bytes by its name, checked.
        most_bytes: of pixels and depth together; more are refused before anything is decoded.

    Raises:
        StorageError: of ``read``; ``settings``: more than ``most_bytes``; ``tampered``: contents contradict each other.
            Any other exception that bad values cause is a ValueError, TypeError, KeyError or a SpatialMllmError.
    """
    needed = sum(_pixel_bytes(entry) for entry in scene["frames"])
    if most_bytes is not None and needed > most_bytes:
        raise StorageError(
            "settings",
            f"The saved scene needs {needed} bytes of pixels and buffer.max_bytes with buffer.keyframe_max_bytes allow "
            f"{most_bytes}; raise them.",
        )
    source = None if scene["scale_source"] is None else ScaleSource(scene["scale_source"])
    counts = [_whole(e["placed"]["voxels"]) for e in scene["frames"] if e["placed"] is not None]
    counts += [_whole(anchor["voxels"]) for anchor in scene["anchors"]]
    keys = iter(_split(_array(read(_VOXELS), np.int64, (sum(counts),), _VOXELS), counts))
    frames: dict[int, Frame] = {}
    placed, unplaced = [], []
    for entry in scene["frames"]:
        frame = _frame(entry, read)
        if frame.stamp_ns in frames:
            raise ValueError(f"two frames have the stamp {frame.stamp_ns} ns")
        frames[frame.stamp_ns] = frame
        if entry["placed"] is not None:
            placed.append(_placed(frame, entry["placed"], next(keys), is_keyframe=entry["role"] == _KEYFRAME))
        elif entry["role"] == _RING:
            unplaced.append(frame)
    grid = None if scene["grid"] is None else _grid(scene["grid"])
    content = SceneContent(
        epoch=_whole(scene["epoch"]),
        placed=tuple(placed),
        unplaced=tuple(unplaced),
        anchors=tuple(_anchor(entry, frames[entry["stamp_ns"]], read, next(keys)) for entry in scene["anchors"]),
        grid=grid,
        scale_source=source,
        newest_placed_ns=_whole(scene["newest_placed_ns"]),
    )
    _check_consistent(content, scene["frames"])
    return content


def _check_consistent(content: SceneContent, entries: Sequence[Mapping[str, Any]]) -> None:
    placed, roles = content.placed, [entry["role"] for entry in entries]
    ring = [entry["stamp_ns"] for entry in entries if entry["role"] == _RING]
    sources = {p.scale_source for p in placed} | {a.geometry.scale_source for a in content.anchors}
    units = {source.is_metric for source in sources}
    contradictions = {
        "its ring is not in the order of the stamps": ring != sorted(ring),
        "its frames are not keyframes, then the ring, then anchors": roles
        != sorted(roles, key=[_KEYFRAME, _RING, _ANCHOR].index),
        "it has a keyframe without a place": any(e["role"] == _KEYFRAME and e["placed"] is None for e in entries),
        "it has an anchor with a place that is not held": any(
            e["role"] == _ANCHOR and e["placed"] is not None for e in entries
        ),
        "it has places and no grid, or a grid and no places": (content.grid is None) != (not placed),
        "it has a grid without a scale source": (content.grid is None) != (content.scale_source is None),
        "it mixes metres with relative lengths": len(units) > 1
        or (bool(units) and units != {content.scale_source is not None and content.scale_source.is_metric}),
        "a frame's voxels are not ascending": any(
            len(k) and (k[0] < 0 or (np.diff(k) <= 0).any())
            for k in [*(p.fine_keys for p in placed), *(a.fine_keys for a in content.anchors)]
        ),
    }
    wrong = [text for text, is_so in contradictions.items() if is_so]
    if wrong:
        raise StorageError("tampered", f"The saved scene contradicts itself: {'; '.join(wrong)}. Use another copy.")


# Frames


def _frame_entry(frame: Frame, placed: PlacedFrame | None, role: str, folder: Path) -> dict[str, Any]:
    bgr = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR)
    (folder / _image_name(frame.stamp_ns)).write_bytes(_encoded(".jpg", bgr, cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    if frame.depth_m is not None:
        millimetres = np.rint(frame.depth_m * np.float32(1000))
        with np.errstate(invalid="ignore"):
            usable = (millimetres >= 1) & (millimetres <= _MOST_MM)
        stored = np.where(usable, millimetres, 0).astype(np.uint16)
        (folder / _depth_name(frame.stamp_ns)).write_bytes(_encoded(".png", stored, cv2.IMWRITE_PNG_COMPRESSION, 1))
    return {
        "stamp_ns": frame.stamp_ns,
        "role": role,
        "height_px": frame.rgb.shape[0],
        "width_px": frame.rgb.shape[1],
        "depth_px": None if frame.depth_m is None else list(frame.depth_m.shape),
        "camera_frame_id": frame.camera_frame_id,
        "intrinsics": None if frame.intrinsics is None else asdict(frame.intrinsics),
        "scene_from_cam": None if frame.scene_from_cam is None else frame.scene_from_cam.astype(np.float64).tolist(),
        "placed": None
        if placed is None
        else {
            "scene_from_cam": placed.scene_from_cam.astype(np.float64).tolist(),
            "intrinsics": asdict(placed.intrinsics),
            "scale_source": placed.scale_source.value,
            "voxels": len(placed.fine_keys),
            "contradicted_voxels": placed.contradicted_voxels,
        },
    }


def _frame(entry: Mapping[str, Any], read: Callable[[str], bytes]) -> Frame:
    stamp_ns = _whole(entry["stamp_ns"])
    payload = read(_image_name(stamp_ns))
    header = validate_compressed("jpeg", payload)
    if [header.height_px, header.width_px] != [entry["height_px"], entry["width_px"]]:
        raise ValueError(f"the image of frame {stamp_ns} is not of the size stated")
    rgb = decode_compressed_color("jpeg", payload)
    depth = None
    if entry["depth_px"] is not None:
        raw = read(_depth_name(stamp_ns))
        png = read_png_header(memoryview(raw))
        if [png.height_px, png.width_px] != entry["depth_px"] or (png.channels, png.bits_per_channel) != (1, 16):
            raise ValueError(f"the depth of frame {stamp_ns} is not of the size stated")
        stored = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
        if stored is None:
            raise ValueError(f"the depth of frame {stamp_ns} cannot be decoded")
        depth = depth_from_millimetres(stored)
    return Frame(
        stamp_ns,
        rgb,
        _text(entry["camera_frame_id"]),
        None if entry["intrinsics"] is None else Intrinsics(**entry["intrinsics"]),
        depth,
        None if entry["scene_from_cam"] is None else _pose(entry["scene_from_cam"]),
    )


def _pixel_bytes(entry: Mapping[str, Any]) -> int:
    color, depth = (entry["height_px"], entry["width_px"], 3), entry["depth_px"]
    return math.prod(map(_whole, color)) + (0 if depth is None else 4 * math.prod(map(_whole, depth)))


def _placed(frame: Frame, entry: Mapping[str, Any], keys: np.ndarray, *, is_keyframe: bool) -> PlacedFrame:
    return PlacedFrame(
        frame,
        _pose(entry["scene_from_cam"]),
        Intrinsics(**entry["intrinsics"]),
        ScaleSource(entry["scale_source"]),
        keys,
        is_keyframe,
        _whole(entry["contradicted_voxels"]),
    )


def _grid(entry: Mapping[str, Any]) -> GridState:
    size, level = float(entry["voxel_size"]), _whole(entry["level"])
    if not (math.isfinite(size) and size > 0) or level > MAX_LEVEL:
        raise ValueError(f"the grid has voxels of {size} at level {level}")
    return GridState(size, level, _whole(entry["frames_since_measured"]))


# Anchors


def _anchor_entry(anchor: Anchor, folder: Path) -> dict[str, Any]:
    geometry, stamp_ns = anchor.geometry, anchor.frame.stamp_ns
    (folder / f"points_{stamp_ns}.npy").write_bytes(_npy(geometry.points_scene.astype(np.float32, copy=False)))
    (folder / f"confidence_{stamp_ns}.npy").write_bytes(_npy(geometry.confidence.astype(np.float32, copy=False)))
    return {
        "stamp_ns": stamp_ns,
        "voxels": len(anchor.fine_keys),
        "map_px": list(geometry.confidence.shape),
        "scene_from_cam": geometry.scene_from_cam.astype(np.float64).tolist(),
        "intrinsics": asdict(geometry.intrinsics),
        "scale_source": geometry.scale_source.value,
    }


def _anchor(entry: Mapping[str, Any], frame: Frame, read: Callable[[str], bytes], keys: np.ndarray) -> Anchor:
    height, width = (_whole(side) for side in entry["map_px"])
    names = f"points_{frame.stamp_ns}.npy", f"confidence_{frame.stamp_ns}.npy"
    geometry = FrameGeometry(
        _array(read(names[0]), np.float32, (height, width, 3), names[0]),
        _array(read(names[1]), np.float32, (height, width), names[1]),
        _pose(entry["scene_from_cam"]),
        Intrinsics(**entry["intrinsics"]),
        ScaleSource(entry["scale_source"]),
    )
    return Anchor(frame, geometry, keys)


# Values


def _image_name(stamp_ns: int) -> str:
    return f"image_{stamp_ns}.jpg"


def _depth_name(stamp_ns: int) -> str:
    return f"depth_{stamp_ns}.png"


def _encoded(kind: str, pixels: np.ndarray, option: int, value: int) -> bytes:
    done, payload = cv2.imencode(kind, pixels, [option, value])
    if not done:
        raise OSError(f"OpenCV could not write {list(pixels.shape)} pixels as {kind}")
    return payload.tobytes()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _array(content: bytes, dtype: type, shape: tuple[int, ...], name: str) -> np.ndarray:
    """An array of a .npy file whose header says just what is expected, so that nothing else is ever interpreted."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    found = np.lib.format.read_array_header_1_0(stream) if version == (1, 0) else None
    start = stream.tell()
    if found != (shape, False, np.dtype(dtype)) or len(content) - start != np.dtype(dtype).itemsize * math.prod(shape):
        raise ValueError(f"{name} is not an array of {np.dtype(dtype)} {list(shape)}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).copy()


def _split(keys: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    ends = np.cumsum(counts, dtype=np.int64)
    return [keys[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _pose(rows: Any) -> np.ndarray:
    pose = np.array(rows, dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError("a pose is not a finite [4, 4]")
    return pose


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]} is not a whole number from 0 up")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]} is not a text")
    return value
