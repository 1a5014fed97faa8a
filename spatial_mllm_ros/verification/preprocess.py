"""Frame preparation against ``preprocess/`` and the source frames in ``spatial_mllm_tiny/``: identical or failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spatial_mllm_ros.verification.checks import Check, compare


def checks(root: Path) -> Iterator[Check]:
    """Size tables, frame indices, pixels and patch rows; nothing for files that are absent."""
    if (root / "preprocess" / "tables.json").is_file():
        yield from _table_checks(root / "preprocess" / "tables.json")
    if (root / "preprocess" / "pixels.npz").is_file():
        with np.load(root / "preprocess" / "pixels.npz") as pixels:
            yield from _pixel_checks(dict(pixels))
    for path in sorted((root / "spatial_mllm_tiny").glob("v11_case_*.npz")):
        with np.load(path) as case:
            yield from _source_frame_checks(f"preprocess/{path.stem}", dict(case))


def _table_checks(path: Path) -> Iterator[Check]:
    from spatial_mllm_ros.models.spatial_mllm.preparation import (
        INFERENCE_BUDGET,
        TRAINING_BUDGET,
        evaluation_frame_indices,
        training_frame_indices,
    )

    tables = json.loads(path.read_text())
    for column, budget in (("infer_qwen_vl_utils", INFERENCE_BUDGET), ("train_v1_1", TRAINING_BUDGET)):
        sizes = [budget.size_px(row["h"], row["w"]) for row in tables["size_table"]]
        yield compare("preprocess/sizes", column, sizes, [row[column] for row in tables["size_table"]], tolerance=0)
    rules = {
        "qwen_vl_utils_": evaluation_frame_indices,
        "train_np_": training_frame_indices,
        "sa_candidates_": training_frame_indices,
    }
    for row in tables["frame_indices"]:
        for quantity, reference in row.items():
            prefix = next((prefix for prefix in rules if quantity.startswith(prefix)), None)
            if prefix is not None:
                count = min(int(quantity.removeprefix(prefix)), row["total"])
                ours = rules[prefix](row["total"], count)
                yield compare(f"preprocess/indices_of_{row['total']}", quantity, ours, reference, tolerance=0)


def _pixel_checks(pixels: dict[str, np.ndarray]) -> Iterator[Check]:
    from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget, prepare_video, resize_frames

    frames = list(pixels["frames_uint8_thwc"])
    for path, pil_resize in (("infer", False), ("train", True)):
        # The reference frames are tiny: a budget that holds just their size keeps them so.
        target = pixels["infer_resized_tchw"].shape[-2:]
        budget = PixelBudget(target[0] * target[1], target[0] * target[1], pil_resize)
        video = prepare_video(frames, budget)
        case = f"preprocess/pixels_{path}"
        ours = {
            f"{path}_pixel_values_videos": video.pixel_values_videos,
            f"{path}_video_grid_thw": video.video_grid_thw,
            "infer_resized_tchw": resize_frames(frames, budget),
            "infer_video_tchw_for_vggt": video.spatial_images[: len(frames)],
            "train_processed_videos": video.spatial_images,
        }
        for quantity, value in ours.items():
            if quantity.startswith(path):
                yield compare(case, quantity, value, pixels[quantity], tolerance=0)


def _source_frame_checks(name: str, case: dict[str, np.ndarray]) -> Iterator[Check]:
    import torch

    from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget, prepare_video

    kind, pixels = ("image", "pixel_values") if "pixel_values" in case else ("video", "pixel_values_videos")
    rows = []
    for index in range(len(case[f"{kind}_grid_thw"])):
        frames = case[f"frames_uint8_{index}"].transpose(0, 2, 3, 1)
        area = frames.shape[1] * frames.shape[2]
        video = prepare_video(list(frames), PixelBudget(area, area, pil_resize=False))
        rows.append(video.pixel_values_videos)
        yield compare(name, f"{kind}_tchw_{index}", video.spatial_images, case[f"{kind}_tchw_{index}"], tolerance=0)
    yield compare(name, pixels, torch.cat(rows), case[pixels], tolerance=0)
