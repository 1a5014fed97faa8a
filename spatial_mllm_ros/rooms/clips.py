"""Clips: frames along a walk with exact depth, poses, ids and annotations. Training and files both use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.frames.frame import Frame
from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.recordings.recording import FIRST_STAMP_NS
from spatial_mllm_ros.rooms.renderer.packing import PackedWorlds, pack_worlds
from spatial_mllm_ros.rooms.renderer.renderer import render
from spatial_mllm_ros.rooms.renderer.sensor import SensorModel, expose
from spatial_mllm_ros.rooms.world.kit import Kit
from spatial_mllm_ros.rooms.world.walk import Walk, make_walk
from spatial_mllm_ros.rooms.world.world import World, make_world
from spatial_mllm_ros.scene_questions.scene_annotation import SceneAnnotation, Visibility, box_pixels

CAMERA_FRAME = "camera_color_optical_frame"


@dataclass(frozen=True)
class ClipConfig:
    """How clips are taken.

    Attributes:
        frames: frames per clip.
        rate_hz: frames per second; 0 spreads the frames evenly over the whole walk.
        pieces: with a rate, the number of runs of consecutive frames in the clip, in order of time; each begins at a
            random time. 0: one run from the start of the walk.
        focal: range of the focal length divided by the image's width, from which each clip draws; 0.6 sees 80 degrees.
        workers: threads that render (CPU).
    """

    frames: int = 16
    width_px: int = 112
    height_px: int = 84
    rate_hz: float = 0.0
    pieces: int = 0
    focal: tuple[float, float] = (0.55, 0.9)
    sensor: SensorModel = field(default_factory=SensorModel)
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("frames", "width_px", "height_px", "workers"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"ClipConfig.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.pieces < 0 or (self.pieces and self.frames % self.pieces):
            raise ConfigurationError(
                f"ClipConfig.pieces is {self.pieces}; it must be 0, or divide the {self.frames} frames evenly."
            )
        if self.rate_hz < 0 or not 0.2 <= self.focal[0] <= self.focal[1] <= 5:
            raise ConfigurationError(
                f"ClipConfig: rate_hz {self.rate_hz} must be 0 or more, focal {self.focal} a range within 0.2..5."
            )


@dataclass(frozen=True, eq=False)
class Clip:
    """F frames of one world.

    Attributes:
        intrinsics: the same for all frames.
        stamps_ns: int64 [F]. scene_from_cam: float64 [F, 4, 4].
        rgb: uint8 [F, H, W, 3]. depth_m: float32 [F, H, W], NaN through windows. instance: int16 [F, H, W].
        annotation: objects, rooms, and what the frames show.
    """

    world: World
    intrinsics: Intrinsics
    stamps_ns: np.ndarray
    scene_from_cam: np.ndarray
    rgb: torch.Tensor
    depth_m: torch.Tensor
    instance: torch.Tensor
    annotation: SceneAnnotation

    def frames(self) -> Iterator[Frame]:
        """The clip as camera frames with exact depth and poses."""
        for f, stamp in enumerate(self.stamps_ns):
            yield Frame(
                int(stamp),
                self.rgb[f].cpu().numpy(),
                camera_frame_id=CAMERA_FRAME,
                intrinsics=self.intrinsics,
                depth_m=self.depth_m[f].cpu().numpy(),
                scene_from_cam=self.scene_from_cam[f],
            )


def make_clips(
    seeds: Sequence[int], config: ClipConfig, *, device: str | torch.device = "cpu", walk: int = 0
) -> list[Clip]:
    """Makes worlds, walks, frames and annotations of seeds; deterministic per (seed, walk, config) on one device.

    Args:
        walk: number of the walk through each world; another number gives another walk, camera and noise.

    Raises:
        ConfigurationError: no seed is given, or one is negative.
    """
    worlds = [make_world(seed) for seed in seeds]
    packed = pack_worlds(worlds).to(device)
    walks = [make_walk(world, walk) for world in worlds]
    times = [_times(config, path, world, walk) for path, world in zip(walks, worlds, strict=True)]
    cameras = [_camera(config, world, walk) for world in worlds]
    rgb, depth, instance = _render(packed, walks, times, cameras, config, device)
    clips = []
    for w, world in enumerate(worlds):
        part = slice(w * config.frames, (w + 1) * config.frames)
        generator = torch.Generator(device).manual_seed(world.seed * 1000 + walk)
        poses = walks[w].poses(times[w])
        stamps = FIRST_STAMP_NS + np.rint(times[w] * 1e9).astype(np.int64)
        clips.append(
            Clip(
                world=world,
                intrinsics=cameras[w],
                stamps_ns=stamps,
                scene_from_cam=poses,
                rgb=expose(rgb[part], config.sensor, generator),
                depth_m=depth[part],
                instance=instance[part],
                annotation=annotate(world, instance[part], stamps, poses, cameras[w]),
            )
        )
    return clips


def annotate(
    world: World, instance: torch.Tensor, stamps_ns: np.ndarray, scene_from_cam: np.ndarray, camera: Intrinsics
) -> SceneAnnotation:
    """What frames with ids ``instance`` int16 [F, H, W] show of a world, in the scene format."""
    frames, count = len(instance), len(world.objects)
    offset = torch.arange(frames, device=instance.device)[:, None] * (count + 1)
    flat = (instance.view(frames, -1).to(torch.int64) + offset).reshape(-1)
    pixels = torch.bincount(flat, minlength=frames * (count + 1)).view(frames, count + 1)[:, 1:].cpu().numpy()
    whole = box_pixels([thing.box for thing in world.objects], scene_from_cam, camera.matrix())
    fraction = np.clip(pixels / np.maximum(whole * world.fill, 1.0), 0, 1).astype(np.float32)
    seen = Visibility(stamps_ns, scene_from_cam, pixels.astype(np.int32), fraction, (camera.width_px, camera.height_px))
    return SceneAnnotation(f"rooms_{world.seed:09d}", world.objects, world.rooms, "rooms", seen)


def _times(config: ClipConfig, path: Walk, world: World, walk: int) -> np.ndarray:
    if not config.rate_hz:
        return (np.arange(config.frames) + 0.5) / config.frames * path.duration_s
    times = np.arange(config.frames // max(1, config.pieces)) / config.rate_hz
    if not config.pieces:
        return times
    left_s = max(0.0, path.duration_s - float(times[-1]))
    starts = np.sort(np.random.default_rng((world.seed, 6, walk)).uniform(0, left_s, config.pieces))
    return (starts[:, None] + times).ravel()


def _camera(config: ClipConfig, world: World, walk: int) -> Intrinsics:
    k = Kit(np.random.default_rng((world.seed, 4, walk)))
    w, h, focal = config.width_px, config.height_px, k.u(*config.focal) * config.width_px
    # Pixels are not quite square and the axis is off centre, so that code which mixes them up fails.
    return Intrinsics(focal, focal * k.u(0.985, 1.015), w * k.u(0.48, 0.52) - 0.5, h * k.u(0.48, 0.52) - 0.5, w, h)


def _render(
    packed: PackedWorlds,
    walks: list[Walk],
    times: list[np.ndarray],
    cameras: list[Intrinsics],
    config: ClipConfig,
    device: str | torch.device,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colour float32, depth and ids of all clips, one after the other; the colour is a mean over the exposure."""
    world = torch.arange(len(walks)).repeat_interleave(config.frames)
    k = torch.tensor([[c.fx_px, c.fy_px, c.cx_px, c.cy_px] for c in cameras]).repeat_interleave(config.frames, 0)
    size = (config.width_px, config.height_px)

    def at(shift_s: float) -> torch.Tensor:
        poses = np.concatenate([walk.poses(t + shift_s) for walk, t in zip(walks, times, strict=True)])
        return torch.from_numpy(poses).to(device)

    middle = render(packed, world, at(0.0), k, size, workers=config.workers)
    samples, rgb = max(1, config.sensor.blur_samples), middle.rgb
    if samples > 1:
        # If the number is odd, the sample in the middle of the exposure is rendered already.
        shifts = ((np.arange(samples) + 0.5) / samples - 0.5) * config.sensor.shutter_s
        images = [
            middle.rgb if abs(s) < 1e-9 else render(packed, world, at(s), k, size, workers=config.workers).rgb
            for s in shifts
        ]
        rgb = torch.stack(images).mean(0)
    return rgb, middle.depth_m, middle.instance
