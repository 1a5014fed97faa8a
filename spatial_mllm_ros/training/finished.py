"""Writes the weights of a finished run as a checkpoint folder, in the layout of the checkpoint that it started from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints.files import CheckpointFiles, read_checkpoint, write_checkpoint
from spatial_mllm_ros.models.checkpoints.layouts import TIED_KEY, TIED_TO_KEY, layout_of, our_key
from spatial_mllm_ros.training.loop import is_sharded, trained_parameters

if TYPE_CHECKING:
    from accelerate import Accelerator

_LOG = logging.getLogger(__name__)
#: Text files that are copied from the checkpoint that the run started from.
_KEPT_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json"),
    *("chat_template.json", "chat_template.jinja", "special_tokens_map.json", "added_tokens.json"),
    *("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md"),
)


def save_finished(
    folder: Path,
    model: nn.Module,
    accelerator: Accelerator,
    *,
    place: tuple[str, str],
    source: Path,
    save_dtype: str,
    config_changes: Mapping[str, Any],
    replaced: tuple[str, ...] = (),
) -> Path:
    """Writes a copy of ``source`` with the trained weights; what was not trained is as in ``source``.

    Args:
        folder: appears whole or not at all; not changed if it exists.
        model: the objective, as ``loop.train`` returns it.
        place: the prefix of the model's parameters in the objective, and their prefix in the model of ``source``; other
            parameters of the objective do not belong to the model.
        source: the checkpoint folder that the run started from.
        save_dtype: ``source``, or the dtype of every weight in the file.
        config_changes: entries for config.json; None removes an entry.
        replaced: prefixes of the names, in the objective, of weights that were changed without being trained.

    Raises:
        CheckpointError: a weight does not fit ``source``, or the folder cannot be written.
    """
    unwrapped = accelerator.unwrap_model(model)
    trained = {name for name in trained_parameters(unwrapped) if name.startswith(place[0])}
    trained |= {name for name, _ in unwrapped.named_parameters() if name.startswith(replaced)}
    state = accelerator.get_state_dict(model) if is_sharded(accelerator) else unwrapped.state_dict()
    if accelerator.is_main_process and not folder.exists():
        files = read_checkpoint(source, config_required=False)
        own = {place[1] + name.removeprefix(place[0]): value for name, value in state.items() if name in trained}
        config = {name: value for name, value in {**files.config, **config_changes}.items() if value is not None}
        texts = {name: (source / name).read_text(encoding="utf-8") for name in _KEPT_FILES if (source / name).is_file()}
        write_checkpoint(folder, config, _merged(files, own, save_dtype), texts=texts)
        _LOG.info("The finished checkpoint is in %s.", folder)
    accelerator.wait_for_everyone()
    return folder


def _merged(files: CheckpointFiles, trained: Mapping[str, torch.Tensor], save_dtype: str) -> dict[str, torch.Tensor]:
    """All tensors of the source, with the trained ones replaced."""
    layout = layout_of(files.shapes)
    merged: dict[str, torch.Tensor] = {}
    used = set()
    for key, tensor in files.read("cpu"):
        ours = our_key(TIED_TO_KEY if key == TIED_KEY and TIED_KEY not in trained else key, layout)
        new = trained.get(ours, tensor)
        if new.shape != tensor.shape:
            raise CheckpointError(f"{key} was trained as {list(new.shape)}; {files.folder} has {list(tensor.shape)}.")
        used.add(ours)
        merged[key] = _cast(key, new.detach().cpu(), tensor.dtype if save_dtype == "source" else save_dtype)
    if lost := sorted(set(trained) - used):
        raise CheckpointError(f"{files.folder} has no place for the trained {', '.join(lost[:5])}.")
    return merged


def _cast(key: str, weight: torch.Tensor, dtype: torch.dtype | str) -> torch.Tensor:
    cast = weight.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    if cast.isfinite().all() or not weight.isfinite().all():
        return cast
    _LOG.warning("%s has values beyond the range of %s; it is written as float32.", key, cast.dtype)
    return weight.float()
