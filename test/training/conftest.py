"""A small model with fresh weights, clips to train on, and a clean slate for accelerate between runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spatial_mllm_ros.geometry.poses import inverse_pose
from spatial_mllm_ros.models.small.architecture import write_new_checkpoint
from spatial_mllm_ros.models.small.sizes import SmallArchitecture
from spatial_mllm_ros.models.small.tokenizer_training import spatial_question_corpus, train_tokenizer
from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget
from spatial_mllm_ros.models.vggt import VggtConfig
from spatial_mllm_ros.rooms.clips import Clip, ClipConfig, make_clips
from spatial_mllm_ros.training.geometry.batch import GeometryBatch

SMALLEST = SmallArchitecture(
    vggt=VggtConfig(
        image_size_px=56,
        embed_dim=16,
        dino_depth=1,
        dino_heads=2,
        depth=2,
        heads=2,
        camera_trunk_depth=1,
        camera_heads=2,
        dpt_layers=(0, 0, 1, 1),
        dpt_features=8,
        dpt_channels=(8, 8, 8, 8),
    ),
    hidden_size=32,
    intermediate_size=64,
    layers=2,
    heads=2,
    kv_heads=1,
    vision_hidden_size=32,
    vision_intermediate_size=48,
    vision_layers=2,
    vision_heads=2,
    vision_full_attention=(1,),
    budget=PixelBudget(min_px=56 * 56, max_px=84 * 56, pil_resize=True),
)


@pytest.fixture(autouse=True)
def fresh_accelerate():
    state = pytest.importorskip("accelerate.state", reason="accelerate is not installed")
    state.AcceleratorState._reset_state(reset_partial_state=True)  # after runs of fixtures, which come first
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def smallest() -> SmallArchitecture:
    """The sizes of ``start``."""
    return SMALLEST


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Path:
    """The checkpoint folder that runs start from."""
    folder = tmp_path_factory.mktemp("start") / "smallest"
    write_new_checkpoint(folder, SMALLEST, train_tokenizer(spatial_question_corpus()), licence="mit", seed=3)
    return folder


@pytest.fixture(scope="session")
def clip() -> Clip:
    """Four frames of a generated room."""
    return make_clips([11], ClipConfig(frames=4, width_px=112, height_px=84))[0]


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """Folders of images `bright` and `dark`, and the jsonl file `train.jsonl` with questions about them."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(5)
    for name, level in (("bright", 200), ("dark", 30)):
        (folder / name).mkdir()
        for index in range(5):
            pixels = np.clip(level + random.normal(0, 20, (60, 90, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"frame_{index}.png")
    rows = [line(name, f"How many {thing}s are here?", answer) for name, thing, answer in SAMPLES]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


SAMPLES = (
    ("bright", "chair", "2"),
    ("bright", "sofa", "4"),
    ("dark", "chair", "5"),
    ("dark", "lamp", "3"),
    ("bright", "table", "1"),
    ("dark", "bed", "7"),
)


def line(video: str, question: str, answer: str) -> dict:
    """One row of a data file."""
    asked = {"from": "human", "value": f"<video>\n{question}"}
    return {"video": video, "conversations": [asked, {"from": "gpt", "value": answer}]}


@pytest.fixture(scope="session")
def scene_batch():
    """Makes geometry batches with exact truth: cameras that look at a floor and a slanted wall with a pattern."""
    return _scene_batch


@pytest.fixture(scope="session")
def rotation():
    """Makes rotation matrices about an axis."""
    return _rotation


PLANES = ((np.array([0.0, -1.0, 0.05]), -1.4), (np.array([0.3, 0.1, -1.0]), -3.5))  # normal, offset: n . x = d


def _rotation(axis, angle_rad):
    """Rotation matrix about an axis (Rodrigues)."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle_rad) * k + (1 - np.cos(angle_rad)) * k @ k


def _scene_batch(seed, *, batch=1, frames=3, height=28, width=42):
    """A batch whose images, depth and cameras belong together."""
    random = np.random.default_rng(seed)
    samples = [[_frame(random, height, width) for _ in range(frames)] for _ in range(batch)]
    images, depth, poses, cameras = (
        np.stack([np.stack([frame[part] for frame in sample]) for sample in samples]) for part in range(4)
    )
    depth_m = torch.from_numpy(depth).float()
    return GeometryBatch(
        images=torch.from_numpy(images).float(),
        depth_m=depth_m,
        mask=depth_m.isfinite(),
        cam_from_world=torch.from_numpy(poses).float(),
        intrinsics_px=torch.from_numpy(cameras).float(),
    )


def _frame(random, height, width):
    camera = np.array([[0.9 * width, 0, width / 2], [0, 1.1 * width, height / 2], [0, 0, 1.0]])
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = _rotation(random.normal(size=3), random.uniform(-0.3, 0.3))
    world_from_cam[:3, 3] = random.uniform(-0.4, 0.4, 3)
    v, u = np.mgrid[:height, :width]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera).T @ world_from_cam[:3, :3].T
    depth = np.full((height, width), np.inf)
    for normal, offset in PLANES:
        with np.errstate(divide="ignore"):
            distance = (offset - normal @ world_from_cam[:3, 3]) / (rays @ normal)
        depth = np.where((distance > 0.1) & (distance < depth), distance, depth)
    points = world_from_cam[:3, 3] + rays * np.where(np.isfinite(depth), depth, 0)[..., None]
    image = 0.5 + 0.4 * np.sin(points * [3, 4, 5])
    depth = np.where(depth < 8, depth, np.nan)
    return image.transpose(2, 0, 1), depth, inverse_pose(world_from_cam)[:3], camera
