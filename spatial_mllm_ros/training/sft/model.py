"""What fine-tuning trains: the parts of Spatial-MLLM, which of them are frozen, and the loss on a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from spatial_mllm_ros.errors import CheckpointError, TrainingError
from spatial_mllm_ros.models.checkpoints.files import read_checkpoint
from spatial_mllm_ros.models.checkpoints.layouts import Layout, layout_of
from spatial_mllm_ros.models.checkpoints.loading import load_spatial_mllm, load_vggt
from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm
from spatial_mllm_ros.models.spatial_mllm.preparation import PreparedImage, PreparedVideo
from spatial_mllm_ros.models.spatial_mllm.true_points import point_tokens
from spatial_mllm_ros.storage import sha256_of
from spatial_mllm_ros.training.sft.batch import IGNORED, SftBatch
from spatial_mllm_ros.training.sft.config import SftModelConfig
from spatial_mllm_ros.training.supervision.attention import AttentionSupervision
from spatial_mllm_ros.training.supervision.mentions import MentionHead
from spatial_mllm_ros.training.supervision.tokens import TokenHead, TokenTargets

#: Prefix of a parameter's name -> the part it belongs to; the first prefix that fits counts.
_PART_OF = (
    ("model.connector.", "connector"),
    ("model.visual.merger.", "merger"),
    ("model.visual.", "vision"),
    ("model.spatial_encoder.aggregator.", "spatial"),
    ("model.language_model.", "language"),
    ("lm_head.", "language"),
)
_NEVER_USED = ("mask_token",)  # of DINOv2's pre-training


def part_of(name: str) -> str | None:
    """The trainable part that a parameter belongs to; None if answers do not depend on it (VGGT's heads)."""
    if name.endswith(_NEVER_USED):
        return None
    return next((part for start, part in _PART_OF if name.startswith(start)), None)


def choose_trained(model: SpatialMllm, trained: Sequence[str], *, frozen: torch.dtype) -> None:
    """Makes the parts ``trained`` trainable, in float32, and freezes the others, in ``frozen``; sets training mode."""
    for name, parameter in model.named_parameters():
        chosen = part_of(name) in trained
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if chosen or part_of(name) is None else frozen)
        parameter.requires_grad_(chosen)
    model.train()


@dataclass(frozen=True)
class TakenEncoder:
    """A VGGT from another checkpoint: where it is from, and the entries for config.json that come with it."""

    description: Mapping[str, Any]
    config_changes: Mapping[str, Any]


def take_spatial_encoder(model: SpatialMllm, folder: Path | None) -> TakenEncoder | None:
    """Replaces the VGGT of the model by that of another checkpoint; does nothing without a folder.

    Raises:
        CheckpointError: the folder holds no VGGT, or one of another size.
    """
    if folder is None:
        return None
    files = read_checkpoint(folder, config_required=False)
    if layout_of(files.shapes) is Layout.VGGT:
        vggt = load_vggt(folder)
    else:
        vggt = load_spatial_mllm(folder).model.spatial_encoder
    own = model.model.spatial_encoder
    if vggt.config != own.config:
        raise CheckpointError(
            f"The VGGT in {folder} has other sizes than the checkpoint's ({vggt.config} instead of {own.config}); "
            "start from a checkpoint that was made for it."
        )
    own.load_state_dict(vggt.state_dict())
    return TakenEncoder(
        {"name": folder.resolve().name, "sha256": sha256_of(*files.files)},
        {"spatial_unit_m": files.config.get("spatial_unit_m")},
    )


#: Prefixes of the names, in the objective, of what ``scale_visual_tokens`` changes.
SCALED = ("model.model.visual.merger.", "model.model.connector.")


@torch.no_grad()
def scale_visual_tokens(model: SpatialMllm, prepared: Sequence[PreparedVideo | PreparedImage], rms: float) -> None:
    """Scales the last layers of merger and connector by one factor: the tokens of videos get this root mean square."""
    fused = model.model
    half = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())  # the frozen parts of bf16 runs
    with torch.autocast(model.lm_head.weight.device.type, torch.bfloat16, enabled=half):
        tokens = torch.cat([model.visual_embeddings(item) for item in prepared]).float()
    factor = rms / float(tokens.square().mean().sqrt())
    for last in (fused.visual.merger.mlp[-1], fused.connector.last_layer):
        last.weight.mul_(factor)
        last.bias.mul_(factor)


class SftObjective(nn.Module):
    """Sum of the answer tokens' cross-entropies; logits are made for these tokens only.

    Args:
        config: what the model sees of the frames (the encoder's tokens, true points, or nothing in a share of the
            videos), and the weights of supervision.
        words: int64 [K], the token that stands for each of ``LABELS``; needed with ``config.token_supervision``.
    """

    def __init__(
        self, model: SpatialMllm, config: SftModelConfig | None = None, words: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._words = words if words is not None else torch.empty(0, dtype=torch.long)
        self._true_points = config is not None and config.spatial == "true_points"
        self._zeroed, self._blind = (config.zeroed, config.blind) if config is not None else (0.0, 0.0)
        self._token_weight = config.token_supervision if config is not None else 0.0
        if self._token_weight and words is None:
            raise TrainingError("Token supervision compares tokens with words; give SftObjective the tokens of LABELS.")
        width = model.config.text_config.hidden_size
        self._mention_weight = config.mention_supervision if config is not None else 0.0
        self.token_head = TokenHead(width) if self._token_weight else None
        self.mention_head = MentionHead(width) if self._mention_weight else None
        self._attention_weight = config.attention_supervision if config is not None else 0.0
        self.attention = AttentionSupervision(model.model.language_model, width) if self._attention_weight else None
        self._states: dict[str, torch.Tensor] = {}
        if self.mention_head is not None:
            layers = model.model.language_model.layers
            for name, layer in (("middle", layers[len(layers) // 2]), ("later", layers[-2])):
                layer.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._states[name] = output[0] if isinstance(output, tuple) else output

    def dropped_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters that are trained with the model and are not saved in the finished checkpoint."""
        heads = (
            ("token_head", self.token_head),
            ("mention_head", self.mention_head),
            ("attention", self.attention),
        )
        for name, head in heads:
            if head is not None:
                yield from head.named_parameters(prefix=name)

    def forward(self, batch: SftBatch) -> dict[str, torch.Tensor]:
        """A batch on any device -> ``loss`` and ``token_accuracy`` (tokens that were the likeliest), sums over tokens.

        With supervision also its terms, times the batch's weight, so that they count as the answers do. The language
        model does not run if no row has a dialogue.
        """
        rows, sees, terms = self._visual_rows(batch)
        loss = torch.zeros((), device=rows.device)
        for name in ("name_loss", "place_loss"):
            if name in terms:
                loss = loss + self._token_weight * batch.weight * terms[name]
        terms = {name: term.detach() * batch.weight for name, term in terms.items()}
        if batch.learned_tokens:
            answers, more = self._answers(batch, rows, sees)
            loss, terms = loss + answers, terms | more
        return {"loss": loss, **terms}

    def _answers(
        self, batch: SftBatch, rows: torch.Tensor, sees: Sequence[bool]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The language model's part of the loss, and its terms for the log."""
        device = self.model.lm_head.weight.device
        mask = batch.attention_mask
        hidden = self.model.model(
            input_ids=batch.input_ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            position_ids=batch.position_ids.to(device),
            use_cache=False,
            visual_embeds=rows,
        ).last_hidden_state
        targets = batch.labels[:, 1:].to(device)
        learned = targets != IGNORED
        logits = self.model.lm_head(hidden[:, :-1][learned]).float()
        loss = F.cross_entropy(logits, targets[learned], reduction="sum")
        terms = {"answer_loss": loss.detach(), "token_accuracy": (logits.argmax(-1) == targets[learned]).sum().float()}
        if self.mention_head is not None:
            read = self._mention_terms(self.mention_head, batch, hidden)
            loss = loss + self._mention_weight * batch.weight * read["mention_loss"]
            terms |= {name: term.detach() * batch.weight for name, term in read.items()}
        if self.attention is not None:
            visual = (batch.input_ids == self.model.config.video_token_id).to(device)
            looked = self.attention(batch.names.to(device), batch.answers.to(device), visual, batch.token_targets, sees)
            loss = loss + self._attention_weight * batch.weight * looked["attention_loss"]
            terms |= {name: term.detach() * batch.weight for name, term in looked.items()}
        return loss, terms

    def _mention_terms(self, head: MentionHead, batch: SftBatch, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        states, self._states = self._states, {}
        if set(states) != {"middle", "later"}:
            raise TrainingError(
                "The language model's layers were replaced after SftObjective was made, so their states are not known."
            )
        wanted = batch.readings.to(hidden.device)
        read = wanted.isfinite().any(-1)
        terms: dict[str, torch.Tensor] = head(states["middle"][read], states["later"][read], hidden[read], wanted[read])
        return terms

    def _visual_rows(self, batch: SftBatch) -> tuple[torch.Tensor, list[bool], dict[str, torch.Tensor]]:
        """Visual tokens [n, D] of all rows, one after the other; which rows are shown; means of the token head's terms.

        What is not shown of a row is multiplied by 0 and not left out, so that each process of a distributed run has
        gradients for all trained parameters, whatever it draws.
        """
        fused = self.model.model
        grids = torch.cat([_grid(item) for item in batch.prepared])
        tokens = fused.plain_visual_tokens(torch.cat([_pixels(item) for item in batch.prepared]), grids)
        own = list(tokens.split([item.token_count for item in batch.prepared]))
        added = self._spatial(batch)
        draws = torch.rand(len(own)).tolist()
        rows, read, weights = [], [], []
        shown = [draw >= self._blind for draw in draws]
        for token, addition, draw, targets in zip(own, added, draws, batch.token_targets, strict=True):
            sees = float(draw >= self._blind)
            fuses = float(draw >= self._blind + self._zeroed)
            addition = addition.to(token.device, token.dtype)
            rows.append(sees * token + fuses * addition)
            if self.token_head is not None and targets is not None:
                read.append(self._readings(self.token_head, token, addition, rows[-1], targets))
                weights.append(fuses)
        if not read:
            return torch.cat(rows), shown, {}
        share = torch.tensor(weights, device=tokens.device) / max(1.0, sum(weights))
        return torch.cat(rows), shown, {name: (share * torch.stack([r[name] for r in read])).sum() for name in read[0]}

    def _readings(
        self, head: TokenHead, token: torch.Tensor, addition: torch.Tensor, row: torch.Tensor, targets: TokenTargets
    ) -> dict[str, torch.Tensor]:
        """Names are predicted from Qwen's own tokens, places from what the connector adds, and both from the sum."""
        words = self.model.get_input_embeddings().weight[self._words.to(row.device)]
        alone = {**head.name_terms(token, words, targets), **head.place_terms(addition, targets)}
        fused = {**head.name_terms(row, words, targets), **head.place_terms(row, targets)}
        return {
            **fused,
            "name_loss": alone["name_loss"] + fused["name_loss"],
            "place_loss": alone["place_loss"] + fused["place_loss"],
            "name_accuracy_alone": alone["name_accuracy"],
        }

    def _spatial(self, batch: SftBatch) -> list[torch.Tensor]:
        """What the connector adds to the tokens of each row."""
        fused = self.model.model
        grids = [tuple(_grid(item)[0, 1:].tolist()) for item in batch.prepared]
        if self._true_points:
            width = 2 * fused.spatial_encoder.config.embed_dim
            weight = next(fused.connector.parameters())
            patches = [point_tokens(targets.patches_m, width) for targets in batch.token_targets if targets is not None]
            return [
                fused.connector(patch.to(weight.device, weight.dtype), grid)
                for patch, grid in zip(patches, grids, strict=True)
            ]
        added: dict[int, torch.Tensor] = {}
        by_shape: dict[torch.Size, list[int]] = {}
        for index, item in enumerate(batch.prepared):
            by_shape.setdefault(item.spatial_images.shape, []).append(index)
        for indices in by_shape.values():  # batched: small models spend most of their time between products
            images = torch.stack([batch.prepared[index].spatial_images for index in indices])
            last = fused.spatial_encoder.last_layer_patch_tokens(images.to(fused.visual.device))
            connected = fused.connected(last.flatten(0, 1), grids[indices[0]])
            added |= dict(zip(indices, connected.chunk(len(indices)), strict=True))
        return [added[index] for index in range(len(grids))]


def _pixels(item: PreparedVideo | PreparedImage) -> torch.Tensor:
    return item.pixel_values_videos if isinstance(item, PreparedVideo) else item.pixel_values


def _grid(item: PreparedVideo | PreparedImage) -> torch.Tensor:
    return item.video_grid_thw if isinstance(item, PreparedVideo) else item.image_grid_thw
