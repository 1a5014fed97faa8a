"""Models from checkpoint folders and back: strict about keys and shapes, and with the weights in memory once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints.config import pixel_budget, spatial_unit_m, vggt_config
from spatial_mllm_ros.models.checkpoints.files import (
    MAX_SHARD_BYTES,
    CheckpointFiles,
    read_checkpoint,
    read_json,
    write_checkpoint,
)
from spatial_mllm_ros.models.checkpoints.identity import ModelIdentity, licence_of
from spatial_mllm_ros.models.checkpoints.layouts import (
    FUSION_OF,
    TIED_KEY,
    TIED_TO_KEY,
    VGGT_PREFIX,
    Layout,
    LoadableModel,
    is_tied,
    key_differences,
    layout_of,
    model_on_meta,
    our_key,
    published_key,
    unused_prefixes,
)
from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import PixelBudget
from spatial_mllm_ros.models.spatial_mllm.tokenization import TOKENIZER_NAME, ChatTokenizer
from spatial_mllm_ros.models.vggt import VGGT
from spatial_mllm_ros.storage import sha256_of

_LOG = logging.getLogger(__name__)
_HEADS_IN_FLOAT32 = ("camera_head.", "depth_head.", "point_head.")


@dataclass(frozen=True, eq=False)
class LoadedSpatialMllm:
    """A checkpoint, ready to answer.

    Attributes:
        model: in evaluation mode, no parameter asks for gradients (training switches on those that it trains).
        tokenizer: of the same folder.
        identity: which weights these are.
        fusion: which architecture, and with it which prompts.
        config: config.json as it is in the folder.
        budget: the frame sizes that the weights were trained with, and are to be asked with.
        spatial_unit_m: metres that the spatial encoder calls 1; None where it has no metric scale.
    """

    model: SpatialMllm
    tokenizer: ChatTokenizer
    identity: ModelIdentity
    fusion: Fusion
    config: Mapping[str, Any]
    budget: PixelBudget
    spatial_unit_m: float | None = None


def load_model(
    files: CheckpointFiles, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> LoadableModel:
    """The model of a checkpoint folder, with its weights, in evaluation mode and without gradients.

    Tensors are taken over one by one as they are read, so that the weights are in memory once. VGGT's heads are float32
    whatever ``dtype`` says, because they run in float32.

    Args:
        dtype: of all other weights; None keeps what the files have.

    Raises:
        CheckpointError: unknown layout; missing, unexpected or wrongly shaped keys, which the message lists.
    """
    model = model_on_meta(files.shapes, files.config)
    differences = key_differences(model, files.shapes)
    if len(differences):
        raise CheckpointError(
            f"{files.folder} does not fit the model {layout_of(files.shapes).value} that its config.json describes. "
            f"{differences.sentences()}"
        )
    layout = layout_of(files.shapes)
    unused = unused_prefixes(model, layout)
    heads = tuple(VGGT_PREFIX.get(layout, "") + head for head in _HEADS_IN_FLOAT32)
    state: dict[str, torch.Tensor] = {}
    for key, tensor in files.read(str(device)):
        if not key.startswith(unused):
            wanted = torch.float32 if key.startswith(heads) else dtype or tensor.dtype
            # On the CPU the tensor is the file itself, mapped; a copy does not change when someone replaces the file.
            state[our_key(key, layout)] = tensor.to(wanted, copy=tensor.device.type == "cpu")
    if is_tied(model):
        state[TIED_KEY] = state[our_key(TIED_TO_KEY, layout)]
    model.load_state_dict(state, strict=True, assign=True)
    if not isinstance(model, VGGT) and is_tied(model):
        model.lm_head.weight = model.get_input_embeddings().weight
    _restore_constants(model, torch.device(device))
    return model.eval().requires_grad_(False)


def load_vggt(folder: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> VGGT:
    """VGGT from a folder in the layout of VGGT-1B; ``dtype`` is that of the aggregator, the heads are float32.

    Raises:
        CheckpointError: the folder cannot be read or holds another model.
    """
    files = read_checkpoint(folder, config_required=False)
    if layout_of(files.shapes) is not Layout.VGGT:
        raise CheckpointError(f"{folder} holds a {layout_of(files.shapes).value} model, not a VGGT alone.")
    model = load_model(files, device=device, dtype=dtype)
    if not isinstance(model, VGGT):
        raise CheckpointError(f"{folder} holds a {type(model).__name__}, not a VGGT.")
    return model


def load_spatial_encoder(folder: Path, *, device: str | torch.device = "cpu") -> tuple[VGGT, ModelIdentity]:
    """The VGGT of any checkpoint folder that has one, without the rest, in float32, and whose weights these are.

    The identity is that of the whole folder, as ``load_spatial_mllm`` gives it.

    Raises:
        CheckpointError: the folder cannot be read, is incomplete, or holds no VGGT.
    """
    files = read_checkpoint(Path(folder), config_required=False)
    layout = layout_of(files.shapes)
    if layout not in VGGT_PREFIX:
        raise CheckpointError(f"{folder} holds a {layout.value} model, which has no spatial encoder.")
    prefix = VGGT_PREFIX[layout]
    shapes = {key.removeprefix(prefix): shape for key, shape in files.shapes.items() if key.startswith(prefix)}
    with torch.device("meta"):
        model = VGGT(vggt_config(files.config, shapes))
    differences = key_differences(model, shapes)
    if len(differences):
        raise CheckpointError(f"The spatial encoder in {folder} is not the expected one. {differences.sentences()}")
    state = {
        key.removeprefix(prefix): tensor.to(torch.float32, copy=True)
        for key, tensor in files.read(str(device), prefix)
        if not key.removeprefix(prefix).startswith(model.unused_key_prefixes)
    }
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False), identity_of(files)


def load_spatial_mllm(
    folder: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> LoadedSpatialMllm:
    """A Spatial-MLLM (v1.0 or v1.1) with its tokenizer, from a folder in the published layout.

    Args:
        folder: config.json, tokenizer.json, weights as safetensors.
        device: where the weights go.
        dtype: of all weights but VGGT's heads, which are float32; None keeps what the files have.

    Raises:
        CheckpointError: the folder cannot be read, is incomplete, or holds another model.
    """
    files = read_checkpoint(Path(folder))
    layout = layout_of(files.shapes)
    if layout not in FUSION_OF:
        raise CheckpointError(f"{folder} holds a {layout.value} model, not a Spatial-MLLM.")
    budget = pixel_budget(files.config)
    unit_m = spatial_unit_m(files.config)
    model = load_model(files, device=device, dtype=dtype)
    if not isinstance(model, SpatialMllm):
        raise CheckpointError(f"{folder} holds a {type(model).__name__}, not a Spatial-MLLM.")
    tokenizer = ChatTokenizer.from_folder(files.folder)
    tokenizer.check_ids(
        image=model.config.image_token_id,
        video=model.config.video_token_id,
        vocabulary=model.config.text_config.vocab_size,
    )
    model.generation_config = _generation_config(files, tokenizer)
    identity = identity_of(files)
    _LOG.info("Loaded %s: %s, sha256 %s, licence %s", identity.name, layout.value, identity.sha256, identity.licence)
    return LoadedSpatialMllm(model, tokenizer, identity, FUSION_OF[layout], files.config, budget, unit_m)


def identity_of(files: CheckpointFiles) -> ModelIdentity:
    """Name, hash, architecture and licence of a checkpoint folder.

    Raises:
        CheckpointError: ``random_weights`` in config.json is not true or false.
    """
    random_weights = files.config.get("random_weights", False)
    if not isinstance(random_weights, bool):
        raise CheckpointError(f"random_weights in config.json is {random_weights!r}; expected true or false.")
    return ModelIdentity(
        name=files.folder.resolve().name,
        sha256=sha256_of(*files.files),
        architecture=layout_of(files.shapes).value,
        licence=licence_of(files.folder, files.config),
        random_weights=random_weights,
    )


def save_spatial_mllm(
    folder: Path,
    model: SpatialMllm,
    config: Mapping[str, Any],
    tokenizer: ChatTokenizer,
    *,
    texts: Mapping[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes ``model`` in the published layout of its architecture, so that ``load_spatial_mllm`` reads it back.

    Args:
        folder: must not exist yet; it appears whole or not at all.
        config: config.json to write. A VGGT other than the published one needs the section ``vggt_config``.
        texts: further text files, name -> content.

    Raises:
        CheckpointError: the folder exists or cannot be written, or ``config`` does not describe the model.
    """
    layout = next(layout for layout, fusion in FUSION_OF.items() if fusion is model.fusion)
    tensors = {published_key(key, layout): value for key, value in model.state_dict().items()}
    if is_tied(model):
        tensors.pop(TIED_KEY)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    differences = key_differences(model_on_meta(shapes, config), shapes)
    if len(differences):
        raise CheckpointError(f"The configuration to be saved does not describe the model. {differences.sentences()}")
    content = {TOKENIZER_NAME: tokenizer.to_json(), **(texts or {})}
    write_checkpoint(folder, config, tensors, texts=content, max_shard_bytes=max_shard_bytes)


def _generation_config(files: CheckpointFiles, tokenizer: ChatTokenizer) -> GenerationConfig:
    """Where generation ends. Sampling is left to the caller: greedy unless it says otherwise."""
    path = files.folder / "generation_config.json"
    stated = read_json(path) if path.is_file() else {}
    ends = stated.get("eos_token_id", tokenizer.end_id)
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.end_id}
    return GenerationConfig(eos_token_id=sorted(ends), pad_token_id=stated.get("pad_token_id", tokenizer.pad_id))


def _restore_constants(model: nn.Module, device: torch.device) -> None:
    """Recomputes the buffers that no checkpoint holds (rotary frequencies), which construction on meta left empty."""
    for name, module in model.named_modules():
        empty = [key for key, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        if not empty:
            continue
        if not hasattr(module, "config"):
            raise CheckpointError(
                f"The constants {', '.join(empty)} of {name} ({type(module).__name__}) are not known."
            )
        with torch.device("cpu"):
            fresh = type(module)(module.config)
        for key in empty:
            setattr(module, key, getattr(fresh, key).to(device))
