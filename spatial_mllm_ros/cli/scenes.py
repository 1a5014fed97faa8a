"""Commands about saved scenes."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from spatial_mllm_ros.cli.options import Commands

if TYPE_CHECKING:
    from spatial_mllm_ros.scene.saved.save_load import SavedScene


def add_commands(commands: Commands) -> None:
    """Adds `scene`."""
    scene = commands.add_parser("scene", help="saved scenes")
    actions = scene.add_subparsers(title="actions", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="what a saved scene holds; all hashes are checked")
    inspect.add_argument("folder", type=Path, help="a folder that ~/save_scene wrote")
    inspect.add_argument("--json", action="store_true", help="as JSON, with the SHA-256 of every file")
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from spatial_mllm_ros.scene.saved.save_load import read_scene

    saved, _ = read_scene(arguments.folder.absolute())
    if arguments.json:
        print(json.dumps({**_facts(saved), "files": dict(saved.files)}, indent=2))
        return 0
    facts = _facts(saved)
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    print(f"All {len(saved.files)} files are as their SHA-256 says, and the manifest is as it was written.")
    return 0


def _facts(saved: SavedScene) -> dict[str, str]:
    chosen = saved.selection
    source = chosen.scale_source
    lengths = "no geometry" if source is None else f"{source.value}, voxels of {chosen.voxel_size:.4g}"
    share = chosen.covered_voxels / chosen.total_voxels if chosen.total_voxels else 0.0
    return {
        "folder": str(saved.folder),
        "format": f"version {saved.version}, written by release {saved.code_version}",
        "frames": f"{saved.frames} ({saved.ring_frames} recent, {saved.keyframes} keyframes)",
        "not saved": f"{saved.waiting} that waited for the encoder",
        "seen": f"{_time(saved.first_stamp_ns)} to {_time(saved.last_stamp_ns)}",
        "image size": ", ".join(f"{width}x{height}" for width, height in saved.image_sizes_px),
        "with poses": f"{saved.posed_frames}, in the frame {saved.origin.scene_frame!r}",
        "with depth": str(saved.depth_frames),
        "on disk": f"{saved.nbytes} bytes",
        "in memory": f"{saved.pixel_bytes} bytes of pixels and depth",
        "encoder": saved.encoder,
        "lengths": lengths,
        "coverage": f"{len(chosen.stamps_ns)} frames show {chosen.covered_voxels} of {chosen.total_voxels} voxels "
        f"({share:.1%})",
    }


def _time(stamp_ns: int) -> str:
    """The stamp in seconds, and as a date where the clock counts from 1970."""
    moment = datetime.fromtimestamp(stamp_ns // 1_000_000_000, tz=timezone.utc)
    return f"{stamp_ns / 1e9:.3f} s ({moment:%Y-%m-%d %H:%M:%S} UTC)"
