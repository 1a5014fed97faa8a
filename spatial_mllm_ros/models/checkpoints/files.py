"""Reads and writes the files of a checkpoint folder: safetensors beside a config.json, whatever the model is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.storage import json_object, whole_folder

CONFIG_NAME = "config.json"
SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class TensorInfo(NamedTuple):
    """The header of one tensor."""

    shape: tuple[int, ...]
    file: Path
    dtype: str  #: as safetensors writes it: F32, F16, BF16, ...


@dataclass(frozen=True, eq=False)
class CheckpointFiles:
    """A checkpoint folder whose headers have been read and agree with each other; no weight is in memory yet.

    Attributes:
        folder: where it is.
        config: config.json, {} when there is none.
        files: the weight files, sorted by name.
        tensors: key -> shape and file.
    """

    folder: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, TensorInfo]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of everything in the folder."""
        return {key: info.shape for key, info in self.tensors.items()}

    def read(self, device: str, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor whose key starts with ``prefix``, with its key, file by file, on ``device``.

        Raises:
            CheckpointError: a file changed or broke since its header was read.
        """
        for path in self.files:
            try:
                with safe_open(path, framework="pt", device=device) as weights:
                    for key in weights.keys():  # noqa: SIM118 - not a dict
                        if key.startswith(prefix):
                            yield key, weights.get_tensor(key)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} cannot be read ({error}). {_FETCH_AGAIN}") from error


_FETCH_AGAIN = "Fetch the file again and compare its size with the source."


def read_checkpoint(folder: Path, *, config_required: bool = True) -> CheckpointFiles:
    """Reads config.json and the headers of all weight files of ``folder``.

    Raises:
        CheckpointError: the folder, config.json or a shard is missing or damaged, the weights are pickles, the index
            disagrees with the files. The message names the file and says what to do.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no checkpoint folder {str(folder)!r}; give the folder that holds {CONFIG_NAME} and the weights."
        )
    config = _read_config(folder, required=config_required)
    files, listed = _weight_files(folder)
    tensors: dict[str, TensorInfo] = {}
    for path in files:
        for key, info in _header(path).items():
            if key in tensors:
                raise CheckpointError(f"The key {key!r} is in both {tensors[key].file} and {path}; remove one of them.")
            tensors[key] = info
    if listed is not None:
        _check_index(folder / INDEX_NAME, listed, tensors)
    return CheckpointFiles(folder=folder, config=config, files=tuple(files), tensors=tensors)


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    *,
    texts: Mapping[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a checkpoint folder that ``read_checkpoint`` reads: all of it, or nothing. Same input, same bytes.

    Args:
        folder: must not exist yet; what is there is never overwritten.
        config: becomes config.json.
        tensors: key -> weight, any device.
        texts: further text files, name -> content (tokenizer.json, README.md).
        max_shard_bytes: weights beyond this go to several files with an index.

    Raises:
        CheckpointError: ``folder`` exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; choose another name or remove it first.")
    try:
        with whole_folder(folder) as part:
            _write_json(part / CONFIG_NAME, config)
            for name, content in (texts or {}).items():
                (part / name).write_text(content, encoding="utf-8")
            _write_weights(part, tensors, max_shard_bytes)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}).") from error


def _write_weights(folder: Path, tensors: Mapping[str, torch.Tensor], max_shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    filled = 0
    for key in sorted(tensors):
        size = tensors[key].numel() * tensors[key].element_size()
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(key)
        filled += size
    names = (
        [SINGLE_NAME]
        if len(shards) == 1
        else [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    )
    for name, keys in zip(names, shards, strict=True):
        on_cpu = {key: tensors[key].detach().to("cpu").contiguous() for key in keys}
        save_file(on_cpu, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        weight_map = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        _write_json(folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``.

    Raises:
        CheckpointError: it cannot be read, is not JSON, or is not an object.
    """
    try:
        return json_object(path.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}). {_FETCH_AGAIN}") from error


def _read_config(folder: Path, *, required: bool) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if path.is_file():
        return read_json(path)
    if required:
        raise CheckpointError(f"{path} is missing; the model's sizes are in it. Fetch the whole checkpoint folder.")
    return {}


def _weight_files(folder: Path) -> tuple[list[Path], Mapping[str, str] | None]:
    """The weight files sorted by name, and the index's key -> file name if there is an index."""
    found = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX_NAME
    if index.is_file():
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise CheckpointError(f"{index} has no weight_map of key -> file name. {_FETCH_AGAIN}")
        names = sorted(set(listed.values()))
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise CheckpointError(f"{index} names {outside[0]!r}, which is not a file of this folder.")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(
                f"{index} names {len(names)} weight files and {len(missing)} of them are missing in {folder}: "
                f"{', '.join(missing[:10])}. Fetch them."
            )
        extra = [path.name for path in found if path.name not in names]
        if extra:
            raise CheckpointError(
                f"{folder} holds {', '.join(extra[:10])}, which {INDEX_NAME} does not name; remove it."
            )
        return [folder / name for name in names], listed
    if len(found) > 1:
        raise CheckpointError(
            f"{folder} holds {len(found)} weight files ({', '.join(path.name for path in found[:10])}) but no "
            f"{INDEX_NAME} that says how they belong together. Fetch it."
        )
    if found:
        return found, None
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise CheckpointError(
            f"{folder} holds weights only as pickles ({', '.join(pickled[:10])}), which run code when loaded and are "
            "not read here. Fetch the safetensors variant, or convert them on a machine you trust with "
            "safetensors.torch.save_file."
        )
    raise CheckpointError(
        f"{folder} holds no *.safetensors file. Name another folder, or get published weights with "
        "`spatial_mllm fetch`."
    )


def _header(path: Path) -> dict[str, TensorInfo]:
    try:
        with safe_open(path, framework="pt") as weights:
            slices = {key: weights.get_slice(key) for key in weights.keys()}  # noqa: SIM118 - not a dict
            return {key: TensorInfo(tuple(part.get_shape()), path, part.get_dtype()) for key, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error}). {_FETCH_AGAIN}") from error


def _check_index(index: Path, listed: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    wrong = sorted(key for key, name in listed.items() if key not in tensors or tensors[key].file.name != name)
    wrong += sorted(key for key in tensors if key not in listed)
    if wrong:
        raise CheckpointError(
            f"{index} and the weight files disagree on {len(wrong)} keys: {', '.join(wrong[:10])}. {_FETCH_AGAIN}"
        )
