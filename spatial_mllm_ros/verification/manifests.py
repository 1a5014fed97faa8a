"""The full-size models, built without memory for their weights, against the keys and shapes in ``manifests/``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spatial_mllm_ros.verification.checks import Check

_CONFIG = "spatial_mllm_v1_1_config_as_built.json"


def checks(root: Path) -> Iterator[Check]:
    """One check per manifest; its error is the number of keys that are missing, unexpected or of another shape.

    The models are made by the loader of checkpoint folders, from the manifest's keys and the published config.json.
    """
    folder = root / "manifests"
    paths = sorted(path for path in folder.glob("*.json") if path.name != _CONFIG)
    if not paths:
        return
    config = json.loads((folder / _CONFIG).read_text()) if (folder / _CONFIG).is_file() else {}
    for path in paths:
        content = json.loads(path.read_text())
        if "connector_keys" not in content:
            yield _check(path.stem, _differences(content, config))
        elif (folder / "spatial_mllm_v1_1.json").is_file():
            whole = json.loads((folder / "spatial_mllm_v1_1.json").read_text())
            yield _check(path.stem, _connector_differences(content["connector_keys"], whole, config))


def _differences(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    from spatial_mllm_ros.models.checkpoints.layouts import key_differences, model_on_meta

    shapes = {key: tuple(shape) for key, (shape, _) in manifest.items()}
    return len(key_differences(model_on_meta(shapes, config), shapes))


def _connector_differences(manifest: Mapping[str, Any], whole: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    from spatial_mllm_ros.models.checkpoints.layouts import Layout, model_on_meta, published_key

    model = model_on_meta({key: tuple(shape) for key, (shape, _) in whole.items()}, config)
    named = {
        published_key(key, Layout.SPATIAL_MLLM_1_1): list(value.shape) for key, value in model.state_dict().items()
    }
    ours = {(key, *shape) for key, shape in named.items() if key.startswith("connector.")}
    return len(ours ^ {(key, *shape) for key, (shape, _) in manifest.items()})


def _check(name: str, differing: int) -> Check:
    return Check(
        case=f"manifest/{name}",
        quantity="differing_keys",
        max_abs=float(differing),
        rel_l2=float(differing),
        criterion="max_abs",
        tolerance=0.0,
        passed=differing == 0,
    )
