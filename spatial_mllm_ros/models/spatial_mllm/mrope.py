"""Three-axis rotary positions (mRoPE) by the rule that the published checkpoints were trained with.

That rule is transformers 4.51's: after a video or image the next text position is 1 + the largest position used so far
on any of the three axes. Later releases advance by the larger spatial side only, which is silently another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spatial_mllm_ros.errors import ConfigurationError

PAD_POSITION = 1  # what 4.51 writes at padded tokens; they are masked out, so it only matters for identity


@dataclass(frozen=True)
class MropeRule:
    """What the positions depend on besides the tokens; all of it comes from the checkpoint's config.json."""

    image_token_id: int
    video_token_id: int
    spatial_merge_size: int
    tokens_per_second: float

    def __post_init__(self) -> None:
        if self.spatial_merge_size < 1:
            raise ConfigurationError(f"MropeRule.spatial_merge_size is {self.spatial_merge_size}; it must be >= 1.")
        if not self.tokens_per_second > 0:
            raise ConfigurationError(f"MropeRule.tokens_per_second is {self.tokens_per_second}; it must be above 0.")


def mrope_position_ids(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    rule: MropeRule,
    *,
    image_grid_thw: torch.Tensor | None = None,
    video_grid_thw: torch.Tensor | None = None,
    second_per_grid_ts: Sequence[float] | torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of every token on the time, height and width axes (Qwen2.5-VL, arXiv 2502.13923, section 2.1.2).

    Args:
        input_ids: int64 [B, L]; each image or video is a run of its placeholder token, t*(h/m)*(w/m) long.
        attention_mask: [B, L], 0 at padding (left or right), or None when nothing is padded.
        image_grid_thw: int64 [images, 3], patches, in the order of the placeholders over the batch.
        video_grid_thw: the same for videos.
        second_per_grid_ts: seconds between two temporal steps, one per video; None means 1 s each.

    Returns:
        position_ids int64 [3, B, L] and rope_deltas int64 [B, 1]: the position of the next token is its index in the
        padded row plus the row's delta.

    Raises:
        ConfigurationError: placeholders and grids do not fit each other.
    """
    images = _Grids("image", image_grid_thw, None, rule)
    videos = _Grids("video", video_grid_thw, second_per_grid_ts, rule)
    ids = input_ids.to("cpu")
    mask = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask.to("cpu").bool()
    positions = torch.full((3, *ids.shape), PAD_POSITION, dtype=torch.long)
    deltas = torch.zeros(ids.shape[0], 1, dtype=torch.long)
    for row in range(ids.shape[0]):
        of_row = _row_positions(ids[row][mask[row]], images, videos, rule)
        positions[:, row, mask[row]] = of_row
        deltas[row] = (int(of_row.max()) + 1 if of_row.numel() else 0) - ids.shape[1]
    for grids in (images, videos):
        grids.refuse_leftovers()
    return positions.to(input_ids.device), deltas.to(input_ids.device)


class _Grids:
    """Hands out the grids of one kind in order, as relative positions [3, tokens]."""

    def __init__(
        self,
        kind: str,
        grid_thw: torch.Tensor | None,
        second_per_grid_ts: Sequence[float] | torch.Tensor | None,
        rule: MropeRule,
    ) -> None:
        self._kind = kind
        self._rule = rule
        self._grids: list[list[int]] = [] if grid_thw is None else grid_thw.tolist()
        seconds: list[float] | None
        if isinstance(second_per_grid_ts, torch.Tensor):
            seconds = second_per_grid_ts.double().tolist()
        else:
            seconds = None if second_per_grid_ts is None else [float(s) for s in second_per_grid_ts]
        if seconds is not None and len(seconds) != len(self._grids):
            raise ConfigurationError(
                f"second_per_grid_ts has {len(seconds)} entries for {len(self._grids)} videos; give one per video."
            )
        self._seconds = seconds
        self._used = 0

    def next_positions(self) -> torch.Tensor:
        index = self._used
        if index == len(self._grids):
            raise ConfigurationError(
                f"The tokens hold more {self._kind}s than the {len(self._grids)} given in {self._kind}_grid_thw; "
                "build both from the same frames."
            )
        self._used += 1
        t, h, w = self._grids[index]
        merge = self._rule.spatial_merge_size
        steps = torch.zeros(t, dtype=torch.long)  # an image stands still in time
        if self._kind == "video":
            seconds = 1.0 if self._seconds is None else self._seconds[index]
            # float32 and this order of the products, then truncation: the rounding is part of the rule.
            steps = (torch.arange(t, dtype=torch.float32) * seconds * self._rule.tokens_per_second).long()
        axes = torch.meshgrid(steps, torch.arange(h // merge), torch.arange(w // merge), indexing="ij")
        return torch.stack([axis.flatten() for axis in axes])

    def refuse_leftovers(self) -> None:
        if self._used != len(self._grids):
            raise ConfigurationError(
                f"{self._kind}_grid_thw has {len(self._grids)} entries but the tokens hold {self._used} {self._kind}s; "
                "build both from the same frames."
            )


def _row_positions(ids: torch.Tensor, images: _Grids, videos: _Grids, rule: MropeRule) -> torch.Tensor:
    """Positions int64 [3, n] of one row without padding."""
    parts: list[torch.Tensor] = []
    is_placeholder = (ids == rule.image_token_id) | (ids == rule.video_token_id)
    placeholders = is_placeholder.nonzero().flatten()
    done, position = 0, 0
    while placeholders.numel() and int(placeholders[-1]) >= done:
        start = int(placeholders[torch.searchsorted(placeholders, done)])
        parts.append(_text(start - done, position))
        position += start - done
        token = int(ids[start])
        visual = (videos if token == rule.video_token_id else images).next_positions() + position
        done = start + visual.shape[1]
        found = int((ids[start:done] == token).sum())
        if found != visual.shape[1]:
            raise ConfigurationError(
                f"The grid at token {start} needs {visual.shape[1]} placeholder tokens in a row, not {found}."
            )
        parts.append(visual)
        position = int(visual.max()) + 1
    parts.append(_text(ids.shape[0] - done, position))
    return torch.cat(parts, dim=1)


def _text(count: int, position: int) -> torch.Tensor:
    return torch.arange(position, position + count).expand(3, -1)
