"""A small checkpoint with fixed random weights: every part of Spatial-MLLM v1.1, a few megabytes, no training.

It stands in where no trained weights are at hand, so that installation, node and tests run the real path. Its folder is
like any other; only ``random_weights`` in its config.json says what it is. Its text means nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoint_files import write_checkpoint
from spatial_mllm_ros.models.checkpoint_layouts import Layout, published_key
from spatial_mllm_ros.models.connectors import Fusion
from spatial_mllm_ros.models.model_config import qwen_config, vggt_config
from spatial_mllm_ros.models.prompts import SYSTEM_TEXT
from spatial_mllm_ros.models.spatial_mllm import SpatialMllm
from spatial_mllm_ros.models.tokenization import CONTROL_TOKENS, TOKENIZER_NAME, TURN_END, ChatTokenizer
from spatial_mllm_ros.models.vggt import VGGT, VggtConfig

# Two pairs of blocks with one head: attention over all tokens of 16 frames is what a CPU spends its time on.
_VGGT = VggtConfig(
    image_size_px=70,
    embed_dim=32,
    dino_depth=2,
    dino_heads=2,
    depth=2,
    heads=1,
    camera_trunk_depth=2,
    camera_heads=2,
    dpt_layers=(0, 0, 1, 1),
    dpt_features=16,
    dpt_channels=(16, 16, 32, 32),
)
_README = """---
license: apache-2.0
---
# Spatial-MLLM v1.1 in miniature, with random weights

Written by `spatial_mllm_ros`. Never trained: whatever text it generates means nothing.
"""
# The chat layout of Qwen2.5-VL for one user turn, for tools that render prompts from the tokenizer's folder.
_CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM_TEXT + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_COMMON_CHARACTERS = " etaoinshrdlu"
_FIELD_OF_VIEW_RAD = (0.8, 1.0)  # vertical, horizontal


def write_random_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Writes the checkpoint; the same seed gives the same bytes.

    Args:
        folder: must not exist yet; it appears whole or not at all. When another process writes the same folder
            meanwhile, either's is kept.

    Raises:
        CheckpointError: the folder exists or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; choose another name or remove it first.")
    tokenizer = _tokenizer()
    config = _config(tokenizer)
    with torch.device("meta"):
        model = SpatialMllm(qwen_config(config), vggt_config(config, {}), Fusion.V1_1)
    shapes = {published_key(key, Layout.SPATIAL_MLLM_1_1): value.shape for key, value in model.state_dict().items()}
    shapes.pop("lm_head.weight")  # tied to the embeddings
    tensors = {key: torch.from_numpy(_weight(key, tuple(shape), seed, tokenizer)) for key, shape in shapes.items()}
    texts = {
        TOKENIZER_NAME: tokenizer.to_json(),
        "tokenizer_config.json": json.dumps(_tokenizer_config(), indent=2) + "\n",
        "README.md": _README,
    }
    try:
        write_checkpoint(folder, config, tensors, texts=texts)
    except CheckpointError:
        if not folder.is_dir():
            raise


def random_vggt(config: VggtConfig, *, seed: int = 0) -> VGGT:
    """A VGGT of any size with fixed random weights of which every part has its say; cameras are usable.

    Returns:
        float32, on the CPU, in evaluation mode, without gradients.
    """
    with torch.device("meta"):
        model = VGGT(config)
    tokenizer = _tokenizer()
    state = {
        key: torch.from_numpy(_weight(key, tuple(value.shape), seed, tokenizer))
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _config(tokenizer: ChatTokenizer) -> dict[str, Any]:
    ids = {
        name: tokenizer.control_id(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    return {
        "model_type": "spatial-mllm",
        "random_weights": True,
        "license": "apache-2.0",
        "vocab_size": 256 + len(CONTROL_TOKENS),
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.end_id,
        "pad_token_id": tokenizer.pad_id,
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
        "vision_config": {
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 4,
            "out_hidden_size": 64,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "hidden_act": "silu",
        },
        "spatial_config": {
            "img_size": _VGGT.image_size_px,
            "patch_size": _VGGT.patch_size_px,
            "embed_dim": _VGGT.embed_dim,
        },
        "connector_config": {"connector_type": "mlp_add", "spatial_embeds_layer_idx": -1},
        "vggt_config": asdict(_VGGT),
    }


def _tokenizer() -> ChatTokenizer:
    """Byte-level: every text has tokens, one per byte of its UTF-8."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    full = Tokenizer(BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    full.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    full.decoder = decoders.ByteLevel()
    full.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL_TOKENS])
    return ChatTokenizer(full)


def _tokenizer_config() -> Mapping[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END,
        "pad_token": CONTROL_TOKENS[0],
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }


def _weight(key: str, shape: tuple[int, ...], seed: int, tokenizer: ChatTokenizer) -> np.ndarray:
    """One tensor, float32, from a generator of its own, so that it depends on its name and the seed alone."""
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
        noise = np.array([0, 0, 0, 0, 0, 0, 1, *_FIELD_OF_VIEW_RAD]) / _VGGT.camera_iterations
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
