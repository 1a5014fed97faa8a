"""A small checkpoint with fixed random weights: every part of Spatial-MLLM v1.1, a few megabytes, no training.

Tests and measurements run the real code with it. Its folder is like any other, with ``random_weights`` in config.json.
The text that it generates means nothing.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints.config import qwen_config, vggt_config
from spatial_mllm_ros.models.checkpoints.files import write_checkpoint
from spatial_mllm_ros.models.checkpoints.layouts import Layout, published_key
from spatial_mllm_ros.models.small.architecture import architecture_config, folder_texts
from spatial_mllm_ros.models.small.sizes import RANDOM
from spatial_mllm_ros.models.small.tokenizer_training import byte_tokenizer
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.tokenization import TOKENIZER_NAME, ChatTokenizer
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig

_README = """---
license: apache-2.0
---
# Spatial-MLLM v1.1 in miniature, with random weights

Written by `spatial_mllm_ros`. Never trained: whatever text it generates means nothing.
"""
_COMMON_CHARACTERS = " etaoinshrdlu"
_FIELD_OF_VIEW_RAD = (0.8, 1.0)  # vertical, horizontal


def write_random_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Writes the checkpoint; the same seed gives the same bytes.

    Args:
        folder: must not exist yet; it appears whole or not at all. Where another process writes the same folder at
            the same time, one of the two is kept.

    Raises:
        CheckpointError: the folder exists or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; choose another name or remove it first.")
    tokenizer = byte_tokenizer()
    config = {**architecture_config(RANDOM, tokenizer, licence="apache-2.0"), "random_weights": True}
    with torch.device("meta"):
        model = SpatialMllm(qwen_config(config), vggt_config(config, {}), Fusion.V1_1)
    shapes = {published_key(key, Layout.SPATIAL_MLLM_1_1): value.shape for key, value in model.state_dict().items()}
    shapes.pop("lm_head.weight")  # tied to the embeddings
    tensors = {key: torch.from_numpy(_weight(key, tuple(shape), seed, tokenizer)) for key, shape in shapes.items()}
    texts = {TOKENIZER_NAME: tokenizer.to_json(), **folder_texts(_README)}
    try:
        write_checkpoint(folder, config, tensors, texts=texts)
    except CheckpointError:
        if not folder.is_dir():
            raise


def random_vggt(config: VggtConfig, *, seed: int = 0) -> VGGT:
    """A VGGT of any size with fixed random weights; every part changes the result, and cameras are usable.

    Returns:
        float32, on the CPU, in evaluation mode, without gradients.
    """
    with torch.device("meta"):
        model = VGGT(config)
    tokenizer = byte_tokenizer()
    state = {
        key: torch.from_numpy(_weight(key, tuple(value.shape), seed, tokenizer))
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _weight(key: str, shape: tuple[int, ...], seed: int, tokenizer: ChatTokenizer) -> np.ndarray:
    """One tensor, float32, from its own generator, so that it depends on its name and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    noise = np.random.default_rng(int.from_bytes(digest[:8], "little")).standard_normal(shape)
    if key == "model.embed_tokens.weight":
        # Tied to the output layer: a small row is hardly ever generated. So the text is letters, never half a
        # character of UTF-8 and never a control token.
        scale = np.full((shape[0], 1), 0.02)
        scale[tokenizer.encode_text(_COMMON_CHARACTERS)] = 0.5
        noise *= scale
    elif key.endswith("camera_head.pose_branch.fc2.weight") or key.endswith("scratch.output_conv2.2.weight"):
        noise *= 0.1 / math.sqrt(math.prod(shape[1:]))  # depths and poses stay near the bias
    elif key.endswith("camera_head.pose_branch.fc2.bias"):
        # Near the identity, with a usable field of view; every refinement step adds this once.
        noise = np.array([0, 0, 0, 0, 0, 0, 1, *_FIELD_OF_VIEW_RAD]) / RANDOM.vggt.camera_iterations
    elif key.endswith(("bias", "camera_token", "register_token", "register_tokens", "cls_token", "pos_embed")):
        noise *= 0.1
    elif len(shape) == 1:  # norms and layer scales
        noise = 1.0 + 0.1 * noise
    else:
        noise *= _gain(key) / math.sqrt(math.prod(shape[1:]))
    return noise.astype(np.float32)


def _gain(key: str) -> float:
    """How much larger than usual a matrix is: with usual sizes the language model repeats one letter for ever."""
    if key.startswith("model.layers.") and key.endswith(("q_proj.weight", "k_proj.weight")):
        return 4.0  # sharp attention: otherwise every token sees the mean of thousands
    if key.startswith("model.layers.") and key.endswith(("down_proj.weight", "o_proj.weight")):
        return 16.0  # what is read outweighs the last letter's own embedding
    return 1.0
