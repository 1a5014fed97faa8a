"""VGGT against the reference outputs in ``vggt_tiny/``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from spatial_mllm_ros.geometry.cameras import Intrinsics
from spatial_mllm_ros.geometry.poses import cameras_from_vggt_pose_encoding, inverse_pose
from spatial_mllm_ros.geometry.unprojection import to_scene, unproject_depth
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig, VggtOutput
from spatial_mllm_ros.verification.checks import Check, compare

TOLERANCE = 1e-5
BFLOAT16_TOLERANCE = 3e-2  #: the reference's own bfloat16 run is 1.3e-2 from its float32 run


def checks(root: Path) -> Iterator[Check]:
    """One check per quantity of every ``vggt_tiny/case_*.npz`` under ``root``; nothing where there is none."""
    folder = root / "vggt_tiny"
    paths = sorted(folder.glob("case_*.npz"))
    if not paths:
        return
    weights = load_file(folder / "weights.safetensors")
    config = VggtConfig.from_reference_meta(json.loads((folder / "meta.json").read_text()))
    models = []
    for dtype in (torch.float32, torch.bfloat16):
        model = VGGT(config)
        model.load_state_dict(weights)
        models.append(model.cast_aggregator(dtype).eval())
    for path in paths:
        with np.load(path) as case, torch.inference_mode():
            yield from _case(path.stem.replace("case_", "vggt/", 1), dict(case), *models)


def _case(name: str, case: dict[str, np.ndarray], model: VGGT, bfloat16_model: VGGT) -> Iterator[Check]:
    images = torch.from_numpy(case["images"])
    aggregator, height, width = model.aggregator, images.shape[3], images.shape[4]
    patch_tokens = aggregator.embed(images)
    layers = aggregator.trunk(patch_tokens, aggregator.grid_of(images), range(model.config.depth))
    assert model.camera_head is not None
    poses = model.camera_head(layers[model.config.depth - 1])
    prediction = model(images, (VggtOutput.POSE, VggtOutput.DEPTH, VggtOutput.POINTS))
    cameras = cameras_from_vggt_pose_encoding(_array(prediction.pose_encoding), width_px=width, height_px=height)
    depth = _array(prediction.depth)

    def bfloat16_tokens() -> np.ndarray:
        return _array(bfloat16_model(images, (VggtOutput.LAST_LAYER,)).last_layer)

    ours: dict[str, Callable[[], object]] = {
        "patch_start_idx": lambda: aggregator.patch_start,
        "dino_patchtokens": lambda: _array(patch_tokens.flatten(0, 1)),
        "pose_enc": lambda: _array(prediction.pose_encoding),
        "depth": lambda: depth[..., None],
        "depth_conf": lambda: _array(prediction.depth_confidence),
        "world_points": lambda: _array(prediction.points_world),
        "world_points_conf": lambda: _array(prediction.points_confidence),
        "extrinsic": lambda: cameras.cam_from_world,
        "intrinsic": lambda: cameras.intrinsics,
        "world_points_from_depth": lambda: _unprojected(depth, cameras.cam_from_world, cameras.intrinsics),
        "agg_tokens_last_bf16_as_f32": bfloat16_tokens,
    }
    for quantity, reference in case.items():
        layer, step = (
            re.fullmatch(r"agg_tokens_(\d+)(_mean_std)?", quantity),
            re.fullmatch(r"pose_enc_iter(\d+)", quantity),
        )
        if layer and layer[2]:
            tokens = layers[int(layer[1])].double()
            value: object = np.array([float(tokens.mean()), float(tokens.std())])
        elif layer:
            value = _array(layers[int(layer[1])])
        elif step:
            value = _array(poses[int(step[1])])
        elif quantity in ours:
            value = ours[quantity]()
        else:
            continue
        tolerance = BFLOAT16_TOLERANCE if "bf16" in quantity else TOLERANCE
        yield compare(name, quantity, value, reference, tolerance=tolerance, criterion="rel_l2")


def _array(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.float().numpy()


def _unprojected(depth: np.ndarray, cam_from_world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    height, width = depth.shape[2:]
    points = np.empty((*depth.shape, 3))
    for index in np.ndindex(*depth.shape[:2]):
        k = intrinsics[index]
        camera = Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2], width, height)
        points[index] = to_scene(unproject_depth(depth[index], camera), inverse_pose(cam_from_world[index]))
    return points
