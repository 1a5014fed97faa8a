"""The sizes of a model, from the config.json of a published checkpoint and, where that is silent, from its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import Qwen2_5_VLConfig

from spatial_mllm_ros.errors import CheckpointError, ConfigurationError
from spatial_mllm_ros.models.spatial_mllm.preparation import MERGE, PATCH_PX, TRAINING_BUDGET, PixelBudget
from spatial_mllm_ros.models.vggt import VggtConfig

_TEXT_REQUIRED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "rms_norm_eps"),
)
_TEXT_OPTIONAL = (
    *("hidden_act", "max_position_embeddings", "initializer_range", "use_sliding_window", "sliding_window"),
    *("max_window_layers", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id"),
)
# tokens_per_second is required because its default differs between releases of the library.
_VISION_REQUIRED = (
    *("depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size", "window_size"),
    *("fullatt_block_indexes", "tokens_per_second"),
)
_VISION_OPTIONAL = ("hidden_act", "patch_size", "spatial_merge_size", "temporal_patch_size", "initializer_range")
_TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_HEADS = ("camera_head", "depth_head", "point_head")


def qwen_config(config: Mapping[str, Any]) -> Qwen2_5_VLConfig:
    """The configuration of the Qwen2.5-VL part, from config.json.

    Both the flat layout of transformers 4 and the nested one of 5 are read.

    Raises:
        CheckpointError: a size is missing or not allowed; the message names it.
    """
    text = config["text_config"] if isinstance(config.get("text_config"), Mapping) else config
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        raise CheckpointError("config.json has no vision_config; it is not that of a Qwen2.5-VL model.")
    missing = [name for name in _TEXT_REQUIRED if name not in text]
    missing += [f"vision_config.{name}" for name in _VISION_REQUIRED if name not in vision]
    missing += [name for name in _TOKEN_IDS if name not in config]
    if missing:
        raise CheckpointError(f"config.json does not say {', '.join(missing)}; fetch it again from the model's source.")
    for section, names, prefix in ((text, _TEXT_REQUIRED, ""), (vision, _VISION_REQUIRED, "vision_config.")):
        for name in names:
            _check_size(prefix + name, section[name])
    fixed = {"patch_size": PATCH_PX, "spatial_merge_size": MERGE, "temporal_patch_size": MERGE}
    for name, value in {**fixed, "out_hidden_size": text["hidden_size"]}.items():
        if vision.get(name, value) != value:
            raise CheckpointError(
                f"config.json has vision_config.{name} = {vision[name]!r}; only {value} is known here."
            )
    rope = _rope_parameters(text)
    head_dim, rest = divmod(text["hidden_size"], text["num_attention_heads"])
    if rest or 2 * sum(rope["mrope_section"]) != head_dim:
        raise CheckpointError(
            f"config.json has hidden_size {text['hidden_size']}, num_attention_heads {text['num_attention_heads']} and "
            f"mrope_section {rope['mrope_section']}; the section must add up to half of hidden_size / heads."
        )
    try:
        return Qwen2_5_VLConfig(
            text_config={
                **{name: text[name] for name in (*_TEXT_REQUIRED, *_TEXT_OPTIONAL) if name in text},
                "rope_parameters": rope,
            },
            vision_config={name: vision[name] for name in (*_VISION_REQUIRED, *_VISION_OPTIONAL) if name in vision},
            tie_word_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            **{name: config[name] for name in _TOKEN_IDS},
        )
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"config.json has a value that Qwen2.5-VL cannot have: {error}") from error


def _check_size(name: str, value: object) -> None:
    if name.endswith("fullatt_block_indexes"):
        valid = isinstance(value, list) and all(isinstance(index, int) for index in value)
    elif name.endswith("rms_norm_eps"):
        valid = isinstance(value, float) and 0 < value < 1
    else:
        valid = isinstance(value, int) and value > 0
    if not valid:
        raise CheckpointError(f"config.json has {name} = {value!r}, which cannot be; fetch it again from its source.")


def _rope_parameters(text: Mapping[str, Any]) -> dict[str, Any]:
    scaling = text.get("rope_parameters") or text.get("rope_scaling")
    section = scaling.get("mrope_section") if isinstance(scaling, Mapping) else None
    if not isinstance(scaling, Mapping) or not isinstance(section, list) or not all(type(n) is int for n in section):
        raise CheckpointError("config.json does not say rope_scaling.mrope_section; fetch it again from its source.")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise CheckpointError(f"config.json asks for rope_type {kind!r}; only 'default' and 'mrope' are known here.")
    theta = scaling.get("rope_theta", text.get("rope_theta"))
    if theta is None:
        raise CheckpointError("config.json does not say rope_theta; fetch it again from its source.")
    return {"rope_type": "default", "rope_theta": float(theta), "mrope_section": section}


def vggt_config(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> VggtConfig:
    """The sizes of the VGGT inside a checkpoint.

    Published config.json files hardly say them, so, in this order: the section ``vggt_config`` (fields of VggtConfig)
    where there is one, as in the folders we write; the published VGGT-1B where the token width is its 1024; else from
    the shapes. There the number of attention heads follows from the width of the query norm (the patch encoder is taken
    to have the same number); the sizes of the dense and camera heads cannot be told, so such a folder must have the
    section if it has those heads. Heads that have no key in the folder are left out.

    Args:
        config: config.json.
        shapes: keys of the VGGT part, without the prefix of its place in the whole model, -> shape.

    Raises:
        CheckpointError: the section is malformed, or the shapes do not tell.
    """
    section = config.get("vggt_config")
    if section is not None:
        return _from_section(section)
    present = {head: any(key.startswith(f"{head}.") for key in shapes) for head in _HEADS}
    width = _shape(shapes, "aggregator.camera_token")[-1]
    if width == VggtConfig().embed_dim:
        return VggtConfig.vggt_1b(**present)
    if any(present.values()):
        raise CheckpointError(
            f"The VGGT in this folder has {width}-dim tokens and is not VGGT-1B; the sizes of its heads cannot be told "
            'from the tensors. Add a section "vggt_config" to config.json.'
        )
    patch_px = _shape(shapes, "aggregator.patch_embed.patch_embed.proj.weight")[-1]
    grid = round((_shape(shapes, "aggregator.patch_embed.pos_embed")[1] - 1) ** 0.5)
    heads = width // _shape(shapes, "aggregator.frame_blocks.0.attn.k_norm.weight")[0]
    try:
        return VggtConfig(
            image_size_px=grid * patch_px,
            patch_size_px=patch_px,
            embed_dim=width,
            dino_depth=_count(shapes, r"aggregator\.patch_embed\.blocks\.(\d+)\."),
            dino_heads=heads,
            depth=_count(shapes, r"aggregator\.(?:frame|global)_blocks\.(\d+)\."),
            heads=heads,
            register_tokens=_shape(shapes, "aggregator.register_token")[2],
            camera_head=False,
            depth_head=False,
            point_head=False,
        )
    except ConfigurationError as error:
        raise CheckpointError(f"The shapes of the VGGT in this folder make no sense: {error}") from error


def pixel_budget(config: Mapping[str, Any]) -> PixelBudget:
    """The frame sizes that a checkpoint was trained with: its section ``pixel_budget``, or the published training's.

    Raises:
        CheckpointError: the section is malformed.
    """
    section = config.get("pixel_budget")
    if section is None:
        return TRAINING_BUDGET
    names = {field.name: field.type for field in fields(PixelBudget)}
    valid = isinstance(section, Mapping) and set(section) == set(names)
    if not valid or any(type(section[name]).__name__ != kind for name, kind in names.items()):
        raise CheckpointError(
            f"The section pixel_budget of config.json is {section!r}; expected an object with min_px and max_px "
            "(whole numbers) and pil_resize (true or false)."
        )
    try:
        return PixelBudget(**section)
    except ConfigurationError as error:
        raise CheckpointError(f"The section pixel_budget of config.json is not usable: {error}") from error


def spatial_unit_m(config: Mapping[str, Any]) -> float | None:
    """Metres that the VGGT of a checkpoint calls 1; None where config.json states none: it has no metric scale.

    Raises:
        CheckpointError: the value is not a number above 0.
    """
    unit = config.get("spatial_unit_m")
    if unit is None:
        return None
    if isinstance(unit, bool) or not isinstance(unit, (int, float)) or not 0 < unit < math.inf:
        raise CheckpointError(
            f"spatial_unit_m in config.json is {unit!r}; expected the metres that the spatial encoder calls 1, a "
            "finite number above 0, or no such entry where the encoder has no metric scale."
        )
    return float(unit)


def _from_section(section: object) -> VggtConfig:
    known = {field.name for field in fields(VggtConfig)}
    if not isinstance(section, Mapping) or not set(section) <= known:
        raise CheckpointError(
            f"The section vggt_config of config.json is {section!r}; expected an object with fields out of "
            f"{', '.join(sorted(known))}."
        )
    try:
        return VggtConfig(**section)
    except (ConfigurationError, TypeError) as error:
        raise CheckpointError(f"The section vggt_config of config.json is not usable: {error}") from error


def _shape(shapes: Mapping[str, tuple[int, ...]], key: str) -> tuple[int, ...]:
    if key not in shapes:
        raise CheckpointError(
            f"The folder has no tensor {key!r} of VGGT, so its sizes cannot be told; it is incomplete, fetch it again."
        )
    return shapes[key]


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """1 + the largest block number among the keys that match."""
    matches = (re.match(pattern, key) for key in shapes)
    return 1 + max((int(match.group(1)) for match in matches if match), default=-1)
