"""Describes a checkpoint folder from the headers of its files; no weight is read into memory."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints.files import CheckpointFiles, read_checkpoint
from spatial_mllm_ros.models.checkpoints.identity import licence_of
from spatial_mllm_ros.models.checkpoints.layouts import (
    VGGT_PREFIX,
    KeyDifferences,
    key_differences,
    layout_of,
    model_on_meta,
    unused_prefixes,
)

_SHOWN = 10
_HEADS = ("camera_head.", "depth_head.", "point_head.")  # float32 whatever the rest is


@dataclass(frozen=True)
class Inspection:
    """A checkpoint folder, described.

    Attributes:
        folder: where it is.
        layout: one of the published ones, or "unknown".
        licence: of the weights, as the folder says; "unknown" where it does not.
        random_weights: whether the folder says that it was never trained.
        files: weight file -> bytes.
        parameters: beginning of the keys -> number of parameters.
        dtypes: as in the files -> number of tensors.
        missing, unexpected, wrong_shape: keys that differ from those that the model needs.
        problem: why the folder could not be compared with a model; "" where it could.
        memory_float32_bytes, memory_bfloat16_bytes: the weights in memory when they are loaded so, VGGT's heads being
            float32 in both. Activations and caches come on top.
    """

    folder: str
    layout: str
    licence: str
    random_weights: bool
    files: dict[str, int]
    parameters: dict[str, int]
    dtypes: dict[str, int]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    problem: str
    memory_float32_bytes: int
    memory_bfloat16_bytes: int

    @property
    def loads(self) -> bool:
        """Whether the weights fit the model that config.json describes."""
        return not (self.problem or self.missing or self.unexpected or self.wrong_shape)

    def in_words(self) -> str:
        """All of it as lines of text."""
        total = sum(self.parameters.values())
        lines = [
            f"{self.folder}",
            f"layout      {self.layout}",
            f"licence     {self.licence}",
            f"weights     {'RANDOM: never trained' if self.random_weights else 'trained'}",
            f"files       {len(self.files)}, {sum(self.files.values()) / 1e6:.1f} MB",
            *(f"            {name}: {size / 1e6:.1f} MB" for name, size in self.files.items()),
            f"parameters  {total / 1e6:.2f} M",
            *(f"            {part}: {count / 1e6:.2f} M" for part, count in self.parameters.items()),
            "dtypes      " + ", ".join(f"{count} x {dtype}" for dtype, count in sorted(self.dtypes.items())),
            f"memory      {self.memory_float32_bytes / 1e9:.2f} GB as float32, "
            f"{self.memory_bfloat16_bytes / 1e9:.2f} GB as bfloat16 (weights alone)",
        ]
        for name in ("missing", "unexpected", "wrong_shape"):
            keys = getattr(self, name)
            lines.append(f"{name.replace('_', ' '):11} {len(keys)}")
            lines += [f"            {key}" for key in keys[:_SHOWN]] + ["            ..."] * (len(keys) > _SHOWN)
        if self.problem:
            lines.append(f"problem     {self.problem}")
        lines.append("It fits its model." if self.loads else "It does NOT fit its model and would be refused.")
        return "\n".join(lines)


def inspect_checkpoint(folder: Path) -> Inspection:
    """Describes a checkpoint folder.

    Raises:
        CheckpointError: the folder, config.json or a weight file is missing or damaged.
    """
    files = read_checkpoint(folder, config_required=False)
    layout, problem = "unknown", ""
    heads: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    differences = KeyDifferences((), (), ())
    try:
        known = layout_of(files.shapes)
        layout = known.value
        model = model_on_meta(files.shapes, files.config)
        differences, unused = key_differences(model, files.shapes), unused_prefixes(model, known)
        heads = tuple(VGGT_PREFIX.get(known, "\0") + head for head in _HEADS)
    except CheckpointError as error:
        problem = str(error)
    return Inspection(
        folder=str(folder),
        layout=layout,
        licence=licence_of(files.folder, files.config),
        random_weights=files.config.get("random_weights") is True,
        files={path.name: path.stat().st_size for path in files.files},
        parameters=_parameters(files),
        dtypes=dict(Counter(info.dtype for info in files.tensors.values())),
        missing=differences.missing,
        unexpected=differences.unexpected,
        wrong_shape=differences.wrong_shape,
        problem=problem,
        memory_float32_bytes=_loaded_bytes(files, 4, heads, unused),
        memory_bfloat16_bytes=_loaded_bytes(files, 2, heads, unused),
    )


def _parameters(files: CheckpointFiles) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for key, shape in files.shapes.items():
        counts[key.split(".", 1)[0]] += math.prod(shape)
    return dict(counts.most_common())


def _loaded_bytes(files: CheckpointFiles, each: int, heads: tuple[str, ...], unused: tuple[str, ...]) -> int:
    return sum(
        math.prod(shape) * (4 if key.startswith(heads) else each)
        for key, shape in files.shapes.items()
        if not key.startswith(unused)
    )
