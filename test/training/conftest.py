"""A small model with fresh weights, clips to train on, and a clean slate for accelerate between runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatial_mllm_ros.models.preparation import PixelBudget
from spatial_mllm_ros.models.small_architecture import SmallArchitecture, write_new_checkpoint
from spatial_mllm_ros.models.tokenizer_training import spatial_question_corpus, train_tokenizer
from spatial_mllm_ros.models.vggt import VggtConfig

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
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Path:
    """The checkpoint folder that runs start from."""
    folder = tmp_path_factory.mktemp("start") / "smallest"
    write_new_checkpoint(folder, SMALLEST, train_tokenizer(spatial_question_corpus()), licence="mit", seed=3)
    return folder


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
