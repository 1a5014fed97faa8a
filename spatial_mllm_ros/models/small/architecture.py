"""Spatial-MLLM v1.1 of any size: config.json, the text files beside it, and a model with fresh weights to be trained.

The folder of such a model has the layout of the published ones and is loaded in the same way.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLAttention, Qwen2_5_VLVisionAttention

from spatial_mllm_ros.models.checkpoints.config import qwen_config, vggt_config
from spatial_mllm_ros.models.checkpoints.loading import save_spatial_mllm
from spatial_mllm_ros.models.small.sizes import SmallArchitecture
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import MERGE, PATCH_PX
from spatial_mllm_ros.models.spatial_mllm.prompts import SYSTEM_TEXT
from spatial_mllm_ros.models.spatial_mllm.tokenization import CONTROL_TOKENS, TURN_END, ChatTokenizer
from spatial_mllm_ros.models.vggt import VggtConfig
from spatial_mllm_ros.models.vggt.layers import Attention

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
_FIELD_OF_VIEW_RAD = (0.8, 1.0)  # vertical, horizontal; where the camera head starts
_LAYER_SCALE = 1.0  # VGGT's 0.01 is for a pre-trained patch encoder and very slow from scratch
# Words must not drown in what the first layers add to them; a small last norm keeps the first logits small.
_WORD_STD, _LAST_NORM = 0.25, 0.1
_PATCH_GAIN = 0.5  # pixels of a patch are much alike, so their sum is larger than that of independent inputs
_LIKENESS = 0.8  # correlation of query and key weights: attention begins by looking for what is alike
_TOKEN_STD = 0.1


def architecture_config(sizes: SmallArchitecture, tokenizer: ChatTokenizer, *, licence: str) -> dict[str, Any]:
    """config.json of a model of these sizes, in the layout of the published checkpoints."""
    ids = {
        name: tokenizer.control_id(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    quarter = sizes.hidden_size // sizes.heads // 4
    config: dict[str, Any] = {
        "model_type": "spatial-mllm",
        "license": licence,
        "vocab_size": tokenizer.size,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        # A quarter of the frequencies for time, the rest in equal parts for height and width.
        "rope_scaling": {"type": "mrope", "mrope_section": _mrope_section(2 * quarter)},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.end_id,
        "pad_token_id": tokenizer.pad_id,
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
        "vision_config": {
            "depth": sizes.vision_layers,
            "hidden_size": sizes.vision_hidden_size,
            "intermediate_size": sizes.vision_intermediate_size,
            "num_heads": sizes.vision_heads,
            "out_hidden_size": sizes.hidden_size,
            "window_size": sizes.vision_window_px,
            "fullatt_block_indexes": list(sizes.vision_full_attention),
            "tokens_per_second": 2,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": MERGE,
            "hidden_act": "silu",
        },
        "spatial_config": {
            "img_size": sizes.vggt.image_size_px,
            "patch_size": sizes.vggt.patch_size_px,
            "embed_dim": sizes.vggt.embed_dim,
        },
        "connector_config": {"connector_type": "mlp_add", "spatial_embeds_layer_idx": -1},
        "vggt_config": asdict(sizes.vggt),
    }
    if sizes.budget is not None:
        config["pixel_budget"] = asdict(sizes.budget)
    return config


def _mrope_section(half_head: int) -> list[int]:
    time = half_head // 4
    height = (half_head - time) // 2
    return [time, height, half_head - time - height]


def folder_texts(readme: str) -> dict[str, str]:
    """The text files of a checkpoint folder besides tokenizer.json, name -> content."""
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END,
        "pad_token": CONTROL_TOKENS[0],
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    return {"tokenizer_config.json": json.dumps(tokenizer_config, indent=2) + "\n", "README.md": readme}


def write_new_checkpoint(
    folder: Path, sizes: SmallArchitecture, tokenizer: ChatTokenizer, *, licence: str, seed: int
) -> None:
    """Writes a checkpoint with fresh weights, the start of a training. It says of itself that its weights are random.

    Raises:
        CheckpointError: the folder exists or cannot be written.
    """
    config = {**architecture_config(sizes, tokenizer, licence=licence), "random_weights": True}
    readme = f"---\nlicense: {licence}\n---\n# Spatial-MLLM v1.1, small, with fresh weights (seed {seed})\n"
    save_spatial_mllm(folder, new_model(config, seed=seed), config, tokenizer, texts=folder_texts(readme))


def new_model(config: Mapping[str, Any], *, seed: int) -> SpatialMllm:
    """A Spatial-MLLM v1.1 of config.json's sizes with fresh float32 weights, in training mode.

    A weight depends on its name, its shape and the seed alone. Matrices have the standard deviation 1 / sqrt(inputs),
    those that write to a residual stream less; depth, field of view and rotation start at usable values, because the
    head's ReLU gives a field of view of 0 no gradient.

    Args:
        config: what ``architecture_config`` gives.
        seed: of all weights.
    """
    sizes = vggt_config(config, {})
    model = SpatialMllm(qwen_config(config), sizes, Fusion.V1_1)
    residual = 0.3 / math.sqrt(2 * int(config["num_hidden_layers"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            weight.copy_(_initial(name, weight, generator, residual, sizes))
        for module in model.modules():
            _make_alike(module)
    return model.train()


def _initial(
    name: str, weight: torch.Tensor, generator: torch.Generator, residual: float, sizes: VggtConfig
) -> torch.Tensor:
    noise = torch.randn(weight.shape, generator=generator)
    if name.endswith("pose_branch.fc2.bias"):
        # Near the identity; every refinement step adds this once.
        return torch.tensor([0, 0, 0, 0, 0, 0, 1, *_FIELD_OF_VIEW_RAD]) / sizes.camera_iterations
    if name.endswith("embed_tokens.weight"):
        return _WORD_STD * noise
    if name.endswith("language_model.norm.weight"):
        return torch.full_like(weight, _LAST_NORM)
    if name.endswith(("_token", "_tokens", "pos_embed")):
        return _TOKEN_STD * noise
    if name.endswith(".gamma"):
        return torch.full_like(weight, _LAYER_SCALE)
    if weight.ndim == 1:
        return torch.zeros_like(weight) if name.endswith("bias") else torch.ones_like(weight)
    scaled = noise / math.sqrt(math.prod(weight.shape[1:]))
    if name.endswith(("pose_branch.fc2.weight", "scratch.output_conv2.2.weight")):
        return 0.1 * scaled
    if name.endswith("patch_embed.proj.weight"):
        return _PATCH_GAIN * scaled
    if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.fc2.weight")):
        return residual * scaled
    return scaled


def _make_alike(module: torch.nn.Module) -> None:
    """Mixes the key weights of an attention layer into its query weights, each query head with the keys it meets.

    After Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", ICML 2023: trained attention has
    products of queries and keys near a multiple of the identity, and layers that begin so need far fewer samples.
    """
    if isinstance(module, (Attention, Qwen2_5_VLVisionAttention)):
        query, key, _ = module.qkv.weight.chunk(3)
    elif isinstance(module, Qwen2_5_VLAttention):
        query, key = module.q_proj.weight, module.k_proj.weight
        heads = key.unflatten(0, (-1, module.head_dim))
        key = heads.repeat_interleave(len(query) // len(key), dim=0).flatten(0, 1)
    else:
        return
    query.copy_(_LIKENESS * key + math.sqrt(1 - _LIKENESS**2) * query)
