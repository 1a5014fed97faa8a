"""The key layouts of published checkpoints, and the models that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints.config import qwen_config, vggt_config
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.vggt import VGGT

LoadableModel: TypeAlias = VGGT | Qwen2_5_VLForConditionalGeneration
_SHOWN = 10


class Layout(str, Enum):
    """The key layouts of published checkpoints."""

    VGGT = "VGGT"
    QWEN_VL = "Qwen2.5-VL"
    SPATIAL_MLLM_1_0 = "Spatial-MLLM v1.0"
    SPATIAL_MLLM_1_1 = "Spatial-MLLM v1.1"


_QWEN_PREFIXES = (("visual.", "model.visual."), ("model.", "model.language_model."), ("lm_head.", "lm_head."))
#: Layout -> (prefix of a published key, prefix of ours in its place). Published names are those of transformers 4.51.
_PREFIXES: Mapping[Layout, tuple[tuple[str, str], ...]] = {
    Layout.VGGT: (("", ""),),
    Layout.QWEN_VL: _QWEN_PREFIXES,
    Layout.SPATIAL_MLLM_1_0: (
        ("vggt.", "model.spatial_encoder."),
        ("vggt_embedding_merger.", "model.connector."),
        *_QWEN_PREFIXES,
    ),
    Layout.SPATIAL_MLLM_1_1: (
        ("spatial_encoder.vggt_model.", "model.spatial_encoder."),
        ("connector.", "model.connector."),
        *_QWEN_PREFIXES,
    ),
}
VGGT_PREFIX = {
    Layout.VGGT: "",
    Layout.SPATIAL_MLLM_1_0: "vggt.",
    Layout.SPATIAL_MLLM_1_1: "spatial_encoder.vggt_model.",
}
FUSION_OF = {Layout.SPATIAL_MLLM_1_0: Fusion.V1_0, Layout.SPATIAL_MLLM_1_1: Fusion.V1_1}
TIED_KEY = "lm_head.weight"
TIED_TO_KEY = "model.embed_tokens.weight"


@dataclass(frozen=True)
class KeyDifferences:
    """How the keys of a checkpoint differ from those that its model has, in the published names."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.wrong_shape)

    def sentences(self) -> str:
        """The differences in words, the first ten keys of each kind."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.wrong_shape))
        return " ".join(
            f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}."
            for kind, keys in kinds
            if keys
        )


def layout_of(shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """Which published layout has such keys.

    Raises:
        CheckpointError: none of those known.
    """
    starts = {key.split(".", 1)[0] for key in shapes}
    if {"vggt", "vggt_embedding_merger"} & starts:
        return Layout.SPATIAL_MLLM_1_0
    if {"spatial_encoder", "connector"} & starts:
        return Layout.SPATIAL_MLLM_1_1
    if "aggregator" in starts:
        return Layout.VGGT
    if {"visual", "model"} <= starts:
        return Layout.QWEN_VL
    raise CheckpointError(
        f"The keys start with {', '.join(sorted(starts)[:_SHOWN])}; expected one of the layouts "
        f"{', '.join(layout.value for layout in Layout)}, with the key names that transformers 4 gives them."
    )


def model_on_meta(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> LoadableModel:
    """The model that a checkpoint with such keys and such a config.json is for, without memory for its weights.

    Raises:
        CheckpointError: unknown layout, or sizes missing.
    """
    layout = layout_of(shapes)
    with torch.device("meta"):
        if layout is Layout.QWEN_VL:
            return Qwen2_5_VLForConditionalGeneration(qwen_config(config))
        prefix = VGGT_PREFIX[layout]
        inner = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        sizes = vggt_config(config, inner)
        if layout is Layout.VGGT:
            return VGGT(sizes)
        return SpatialMllm(qwen_config(config), sizes, FUSION_OF[layout])


def key_differences(model: LoadableModel, shapes: Mapping[str, tuple[int, ...]]) -> KeyDifferences:
    """Compares the keys and shapes of a checkpoint with those of ``model``.

    Not compared: parts of a published VGGT that ours leaves out by design, and a tied output layer, which a file may
    hold or not.
    """
    layout = layout_of(shapes)
    expected = {published_key(key, layout): tuple(value.shape) for key, value in model.state_dict().items()}
    optional = {TIED_KEY} if is_tied(model) else set()
    unused = unused_prefixes(model, layout)
    return KeyDifferences(
        missing=tuple(sorted(key for key in expected if key not in shapes and key not in optional)),
        unexpected=tuple(sorted(key for key in shapes if key not in expected and not key.startswith(unused))),
        wrong_shape=tuple(
            f"{key} {list(shapes[key])} instead of {list(shape)}"
            for key, shape in sorted(expected.items())
            if key in shapes and shapes[key] != shape
        ),
    )


def published_key(key: str, layout: Layout) -> str:
    """The key that a parameter of ours has in a checkpoint of ``layout``."""
    for published, ours in _PREFIXES[layout]:
        if key.startswith(ours):
            return published + key.removeprefix(ours)
    raise CheckpointError(f"The parameter {key!r} has no name in the layout {layout.value}.")


def our_key(key: str, layout: Layout) -> str:
    """The inverse of ``published_key``."""
    for published, ours in _PREFIXES[layout]:
        if key.startswith(published):
            return ours + key.removeprefix(published)
    raise CheckpointError(f"The key {key!r} does not belong to the layout {layout.value}.")


def unused_prefixes(model: LoadableModel, layout: Layout) -> tuple[str, ...]:
    """Beginnings of published keys that ``model`` leaves out on purpose."""
    if layout not in VGGT_PREFIX:
        return ()
    vggt = model if isinstance(model, VGGT) else model.spatial_encoder
    return tuple(VGGT_PREFIX[layout] + unused for unused in vggt.unused_key_prefixes)


def is_tied(model: LoadableModel) -> bool:
    """Whether the output layer shares the weight of the input embeddings."""
    return not isinstance(model, VGGT) and bool(model.config.tie_word_embeddings)
