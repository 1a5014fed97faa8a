"""Frames to model inputs: sizes, resizing, normalisation, patch rows. Bit-identical to the published preparation.

Both visual encoders see the same resized frames: Qwen2.5-VL as normalised patch rows, VGGT as images in [0, 1].
torchvision is not used, because it has no build for every torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from spatial_mllm_ros.errors import ConfigurationError

PATCH_PX = 14
MERGE = 2  # patches merged per side, and frames merged in time
SIDE_STEP_PX = PATCH_PX * MERGE
MAX_ASPECT_RATIO = 200.0
# Normalisation of CLIP (arXiv 2103.00020), which Qwen2.5-VL keeps.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PixelBudget:
    """How many pixels a resized frame may have, and which bicubic filter resizes it.

    ``pil_resize``: True uses PIL's fixed-point bicubic filter (published training), False torch's float bicubic filter
    with antialiasing and rounding (published evaluation). Some pixels differ by a grey level.
    """

    min_px: int
    max_px: int
    pil_resize: bool

    def __post_init__(self) -> None:
        if self.min_px < 1:
            raise ConfigurationError(f"PixelBudget.min_px is {self.min_px}; it must be >= 1.")
        if self.max_px < max(self.min_px, SIDE_STEP_PX**2):
            raise ConfigurationError(
                f"PixelBudget.max_px is {self.max_px}; it must be >= min_px ({self.min_px}) and >= {SIDE_STEP_PX**2}."
            )

    def size_px(self, height_px: int, width_px: int) -> tuple[int, int]:
        """(height, width) after resizing: multiples of 28 within the budget, the aspect ratio nearly kept.

        Sides are rounded to the nearest multiple (halves to even); only when the product then leaves the budget are
        both scaled by the same factor and rounded inwards.

        Raises:
            ConfigurationError: an empty frame, or a side ratio above 200.
        """
        if height_px < 1 or width_px < 1:
            raise ConfigurationError(f"A frame of {width_px}x{height_px} pixels cannot be prepared.")
        if max(height_px, width_px) / min(height_px, width_px) > MAX_ASPECT_RATIO:
            raise ConfigurationError(
                f"A frame of {width_px}x{height_px} pixels is more than {MAX_ASPECT_RATIO:.0f} times longer than wide; "
                "crop it."
            )
        rounded = [max(SIDE_STEP_PX, round(side / SIDE_STEP_PX) * SIDE_STEP_PX) for side in (height_px, width_px)]
        area = rounded[0] * rounded[1]
        if area > self.max_px:
            shrink = math.sqrt(height_px * width_px / self.max_px)
            return _floored(height_px / shrink), _floored(width_px / shrink)
        if area < self.min_px:
            grow = math.sqrt(self.min_px / (height_px * width_px))
            return _ceiled(height_px * grow), _ceiled(width_px * grow)
        return rounded[0], rounded[1]


#: Of the published training; a checkpoint whose config.json has no pixel_budget is shown frames of this size.
TRAINING_BUDGET = PixelBudget(min_px=293_216, max_px=324_576, pil_resize=True)
#: Of the published evaluation code, for comparisons with it; the same size at 640x480, more pixels at 1280x720.
INFERENCE_BUDGET = PixelBudget(min_px=100_352, max_px=602_112, pil_resize=False)


@dataclass(frozen=True, eq=False)
class PreparedVideo:
    """One video, ready for both visual encoders. S is even; T = S / 2.

    Attributes:
        pixel_values_videos: float32 [T * (H/14) * (W/14), 1176], normalised patch rows of Qwen2.5-VL.
        video_grid_thw: int64 [1, 3]: T, H/14, W/14.
        spatial_images: float32 [S, 3, H, W], R G B in [0, 1], for VGGT.
        height_px: H, a multiple of 28.
        width_px: W, a multiple of 28.
    """

    pixel_values_videos: torch.Tensor
    video_grid_thw: torch.Tensor
    spatial_images: torch.Tensor
    height_px: int
    width_px: int

    @property
    def token_count(self) -> int:
        """How many placeholder tokens the video takes in the prompt."""
        return int(self.video_grid_thw.prod()) // MERGE**2


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """One still image, ready for both visual encoders: shown to them as two equal frames, as the checkpoints expect.

    Attributes:
        pixel_values: float32 [(H/14) * (W/14), 1176].
        image_grid_thw: int64 [1, 3]: 1, H/14, W/14.
        spatial_images: float32 [2, 3, H, W], R G B in [0, 1].
        height_px: H, a multiple of 28.
        width_px: W, a multiple of 28.
    """

    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor
    spatial_images: torch.Tensor
    height_px: int
    width_px: int

    @property
    def token_count(self) -> int:
        """How many placeholder tokens the image takes in the prompt."""
        return int(self.image_grid_thw.prod()) // MERGE**2


def prepare_video(frames: Sequence[np.ndarray], budget: PixelBudget = TRAINING_BUDGET) -> PreparedVideo:
    """Resizes, normalises and cuts frames into patch rows.

    The encoders merge frames in pairs, so an odd number of frames is made even by repeating the last one.

    Args:
        frames: uint8 [H, W, 3] R G B each, all of one size, at least one, in time order.
        budget: the sizes; those of a checkpoint are ``LoadedSpatialMllm.budget``.

    Raises:
        ConfigurationError: no frame, another dtype or shape, or frames of unequal size.
    """
    _check_frames(frames)
    resized = resize_frames(frames, budget)
    if resized.shape[0] % MERGE:
        resized = torch.cat([resized, resized[-1:]])
    images = resized / 255.0
    height_px, width_px = images.shape[-2:]
    grid = [images.shape[0] // MERGE, height_px // PATCH_PX, width_px // PATCH_PX]
    return PreparedVideo(patch_rows(images), torch.tensor([grid]), images, height_px, width_px)


def prepare_image(image: np.ndarray, budget: PixelBudget = TRAINING_BUDGET) -> PreparedImage:
    """The same for one still image, uint8 [H, W, 3] R G B.

    Raises:
        ConfigurationError: another dtype or shape.
    """
    video = prepare_video([image], budget)
    return PreparedImage(
        pixel_values=video.pixel_values_videos,
        image_grid_thw=video.video_grid_thw,
        spatial_images=video.spatial_images,
        height_px=video.height_px,
        width_px=video.width_px,
    )


def resize_frames(frames: Sequence[np.ndarray], budget: PixelBudget) -> torch.Tensor:
    """Frames uint8 [H, W, 3] of one size, resized: float32 [S, 3, h, w] holding whole grey levels 0-255."""
    height_px, width_px = budget.size_px(*frames[0].shape[:2])
    if budget.pil_resize:
        resized = [
            np.asarray(Image.fromarray(frame).resize((width_px, height_px), Image.Resampling.BICUBIC))
            for frame in frames
        ]
        return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float().contiguous()
    # One frame at a time: the float copy of many large frames at once would be the peak of the node's memory.
    tensors = [
        F.interpolate(
            torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float(),
            size=(height_px, width_px),
            mode="bicubic",
            antialias=True,
        )
        for frame in frames
    ]
    return torch.cat(tensors).clamp(0, 255).round()


def patch_rows(images: torch.Tensor) -> torch.Tensor:
    """Qwen2.5-VL's patch rows from images float32 [S, 3, H, W] in [0, 1]; S even, H and W multiples of 28.

    Returns:
        float32 [S/2 * H/14 * W/14, 1176], CLIP-normalised. Rows go by time, then 2x2 block (row-major), then patch in
        the block; within a row: channel, frame of the pair, y, x.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    normalised = (images - mean) / std
    frames, channels, height, width = normalised.shape
    blocks = normalised.reshape(
        frames // MERGE,
        MERGE,
        channels,
        height // SIDE_STEP_PX,
        MERGE,
        PATCH_PX,
        width // SIDE_STEP_PX,
        MERGE,
        PATCH_PX,
    )
    #                    t, pair, c, by, py, y, bx, px, x  ->  t, by, bx, py, px, c, pair, y, x
    return blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * MERGE * PATCH_PX**2)


def evaluation_frame_indices(total: int, count: int) -> list[int]:
    """``count`` indices spread over ``total`` frames, ends included, rounded as in the published evaluation.

    Raises:
        ConfigurationError: count is not in 1..total.
    """
    _check_count(total, count)
    return [int(index) for index in torch.linspace(0, total - 1, count).round()]


def training_frame_indices(total: int, count: int) -> list[int]:
    """``count`` indices spread over ``total`` frames, ends included, truncated, as training does.

    Raises:
        ConfigurationError: count is not in 1..total.
    """
    _check_count(total, count)
    return [int(index) for index in np.linspace(0, total - 1, count, dtype=int)]


def _check_count(total: int, count: int) -> None:
    if not 1 <= count <= total:
        raise ConfigurationError(f"Cannot pick {count} of {total} frames; the count must be between 1 and {total}.")


def _check_frames(frames: Sequence[np.ndarray]) -> None:
    if len(frames) == 0:
        raise ConfigurationError("There is no frame to prepare; give at least one.")
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ConfigurationError(f"Frame {index} is {frame.dtype} {frame.shape}; expected uint8 [H, W, 3], R G B.")
        if frame.shape != frames[0].shape:
            raise ConfigurationError(
                f"Frame {index} has {frame.shape[1]}x{frame.shape[0]} pixels but frame 0 has "
                f"{frames[0].shape[1]}x{frames[0].shape[0]}; one video needs frames of one size, resize them first."
            )


def _floored(side: float) -> int:
    return max(SIDE_STEP_PX, math.floor(side / SIDE_STEP_PX) * SIDE_STEP_PX)


def _ceiled(side: float) -> int:
    return math.ceil(side / SIDE_STEP_PX) * SIDE_STEP_PX
