"""Spatial-MLLM v1.0 and v1.1, and mRoPE, against the reference outputs in ``spatial_mllm_tiny/``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_mllm_ros.verification.checks import Check, compare

if TYPE_CHECKING:
    import torch

    from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm

TOLERANCE = 1e-4
#: The reference's own bfloat16 run is so far from its float32 run (1.4e-2, 7.9e-2); two such runs may be sqrt(2) apart.
BFLOAT16_TOLERANCE = {"fused_embeds": 2e-2, "logits": 1.1e-1}
_IMAGE, _VIDEO, _TEXT, _PAD = 3, 4, 1, 0  # token ids of the position cases, which give only lengths
_FIRST_ROWS = 4  # the reference keeps so many rows of the connector's norm


def checks(root: Path) -> Iterator[Check]:
    """Positions, then every quantity of every case under ``spatial_mllm_tiny/``; nothing for files that are absent."""
    folder = root / "spatial_mllm_tiny"
    yield from _position_checks(folder / "mrope_cases.json")
    for version in ("v11", "v10"):
        paths = sorted(folder.glob(f"{version}_case_*.npz"))
        if not paths or not (folder / f"{version}_weights.safetensors").is_file():
            continue
        model = _load(folder, version)
        cases = {}
        for path in paths:
            with np.load(path) as arrays:
                cases[path.stem.replace("_case_", "/", 1)] = dict(arrays)
        for name, case in cases.items():
            yield from _case_checks(name, case, model)
        bfloat16 = folder / f"{version}_bf16_cpu.npz"
        if bfloat16.is_file():
            with np.load(bfloat16) as reference:
                yield from _bfloat16_checks(version, cases, dict(reference), folder)


def _load(folder: Path, version: str, dtype: torch.dtype | None = None) -> SpatialMllm:
    """The model through the loader of checkpoint folders, which the reference's two files are laid out as."""
    from spatial_mllm_ros.models.checkpoints.files import CONFIG_NAME, SINGLE_NAME, read_checkpoint
    from spatial_mllm_ros.models.checkpoints.loading import load_model
    from spatial_mllm_ros.models.spatial_mllm.model import SpatialMllm

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch)
        (checkpoint / CONFIG_NAME).symlink_to((folder / f"{version}_config.json").resolve())
        (checkpoint / SINGLE_NAME).symlink_to((folder / f"{version}_weights.safetensors").resolve())
        model = load_model(read_checkpoint(checkpoint), dtype=dtype)
    if not isinstance(model, SpatialMllm):
        raise TypeError(f"{folder / version}_weights.safetensors holds a {type(model).__name__}")
    return model


def _inputs(case: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of forward and generate, out of a reference case."""
    import torch

    names = ("input_ids", "attention_mask", "pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw")
    inputs: dict[str, Any] = {name: torch.from_numpy(case[name]) for name in names if name in case}
    if "second_per_grid_ts" in case:
        inputs["second_per_grid_ts"] = case["second_per_grid_ts"].tolist()
    for name, prefix in (("spatial_images", "image_tchw_"), ("spatial_videos", "video_tchw_")):
        keys = sorted(key for key in case if key.startswith(prefix))
        if keys:
            inputs[name] = [torch.from_numpy(case[key]) for key in keys]
    if "videos_input" in case:  # v1.0: all videos in one array
        inputs["spatial_videos"] = list(torch.from_numpy(case["videos_input"]))
    return inputs


def _case_checks(name: str, case: Mapping[str, np.ndarray], model: SpatialMllm) -> Iterator[Check]:
    import torch

    from spatial_mllm_ros.models.spatial_mllm.mrope import mrope_position_ids

    inputs = _inputs(case)
    with torch.inference_mode():
        positions, deltas = mrope_position_ids(
            inputs["input_ids"],
            inputs["attention_mask"],
            model.model.mrope_rule,
            image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"),
            second_per_grid_ts=inputs.get("second_per_grid_ts"),
        )
        yield compare(name, "position_ids", positions, case["position_ids"], tolerance=0)
        yield compare(name, "rope_deltas", deltas, case["rope_deltas"], tolerance=0)
        for quantity, value in _visual_quantities(case, inputs, model):
            yield compare(name, quantity, value, case[quantity], tolerance=TOLERANCE)
        visual = {key: value for key, value in inputs.items() if key not in ("attention_mask", "second_per_grid_ts")}
        yield compare(name, "inputs_embeds", model.model.embed(**visual), case["inputs_embeds"], tolerance=TOLERANCE)
        real = case["attention_mask"].astype(bool)
        logits = model(**inputs).logits.numpy()[real]
        yield compare(name, "logits", logits, case["logits"][real], tolerance=TOLERANCE)
        yield from _generation_checks(name, case, inputs, model)


def _generation_checks(
    name: str, case: Mapping[str, np.ndarray], inputs: dict[str, Any], model: SpatialMllm
) -> Iterator[Check]:
    """Greedy decoding with the cache."""
    steps = case["generated_ids"].shape[1] - case["input_ids"].shape[1]
    generated = model.generate(
        **inputs,
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    yield compare(name, "generated_ids", generated.sequences, case["generated_ids"], tolerance=0)
    if "greedy_step_logits" in case:
        step_logits = np.stack([step.numpy() for step in generated.logits], axis=1)
        yield compare(name, "greedy_step_logits", step_logits, case["greedy_step_logits"], tolerance=TOLERANCE)


def _visual_quantities(
    case: Mapping[str, np.ndarray], inputs: Mapping[str, Any], model: SpatialMllm
) -> Iterator[tuple[str, np.ndarray]]:
    """What happens on the way to the fused tokens, named as in the reference."""
    import torch

    from spatial_mllm_ros.models.spatial_mllm.connectors import ConnectorV10, merged_rows
    from spatial_mllm_ros.models.vggt import VggtOutput

    kind = "image" if "pixel_values" in inputs else "video"
    pixels = inputs["pixel_values" if kind == "image" else "pixel_values_videos"]
    grid_thw, spatial = inputs[f"{kind}_grid_thw"], inputs[f"spatial_{kind}s"]
    inner = model.model
    yield "visual_2d_embeds", inner.plain_visual_tokens(pixels, grid_thw).numpy()
    added, merged = [], []
    for index, (frames, (_, h, w)) in enumerate(zip(spatial, grid_thw.tolist(), strict=True)):
        layer = inner.spatial_encoder(frames[None], (VggtOutput.LAST_LAYER,)).last_layer[0]
        if f"spatial_last_layer_{index}" in case:
            yield f"spatial_last_layer_{index}", layer.numpy()
        merged.append(merged_rows(layer[:, inner.spatial_encoder.config.patch_start :], (h, w), model.fusion))
        added.append(inner.spatial_tokens(frames, (h, w)))
    connector = inner.connector
    if isinstance(connector, ConnectorV10):
        shape = case["merger_out"].shape
        first = connector.token_merge_mlp(connector.token_merge_ln_q(torch.cat(merged)))
        yield "token_merge_out", first.reshape(shape).numpy()
        yield "merger_out", torch.cat(added).reshape(shape).numpy()
        return
    yield "connector_ln_out_first4", connector.ln_q(torch.cat(merged))[:_FIRST_ROWS].numpy()
    yield "connector_mlp_out", torch.cat(added).numpy()
    yield "fused_embeds", inner.fused_tokens(pixels, grid_thw, spatial).numpy()


def _bfloat16_checks(
    version: str, cases: Mapping[str, Mapping[str, np.ndarray]], reference: Mapping[str, np.ndarray], folder: Path
) -> Iterator[Check]:
    import torch

    model = _load(folder, version, torch.bfloat16)
    for name, case in cases.items():
        short = name.split("/", 1)[1]
        if f"{short}_logits" not in reference:
            continue
        inputs = _inputs(case)
        with torch.inference_mode():
            tokens = model.model.fused_tokens(
                inputs["pixel_values_videos"], inputs["video_grid_thw"], inputs["spatial_videos"]
            )
            logits = model(**inputs).logits
        for quantity, value in (("fused_embeds", tokens), ("logits", logits)):
            yield compare(
                f"{version}_bf16/{short}",
                quantity,
                value.float().numpy(),
                reference[f"{short}_{quantity}"],
                tolerance=BFLOAT16_TOLERANCE[quantity],
                criterion="rel_l2",
            )


def _position_checks(path: Path) -> Iterator[Check]:
    if not path.is_file():
        return
    content = json.loads(path.read_text())
    for kind in ("inference_transformers_4_51_3", "training_rope2d_get_rope_index_25"):
        for case in content.get(kind, ()):
            yield from _position_case(f"mrope_{kind.split('_', 1)[0]}/{case['name']}", case)


def _position_case(name: str, case: Mapping[str, Any]) -> Iterator[Check]:
    import torch

    from spatial_mllm_ros.models.spatial_mllm.mrope import MropeRule, mrope_position_ids

    rows: list[list[int]] = []
    grids: dict[str, list[list[int]]] = {"image": [], "video": []}
    for described in case["rows"]:
        row: list[int] = []
        for item in described:
            if isinstance(item, int):
                row += [_TEXT] * item
                continue
            grids[item["kind"]].append([item["t"], item["h"], item["w"]])
            token = _VIDEO if item["kind"] == "video" else _IMAGE
            row += [_TEXT, *[token] * (item["t"] * item["h"] * item["w"] // 4), _TEXT]
        rows.append(row)
    length = max(len(row) for row in rows)
    ids = torch.tensor([[_PAD] * (length - len(row)) + row for row in rows])
    mask = ids != _PAD
    positions, deltas = mrope_position_ids(
        ids,
        mask,
        # The training cases were made with code that has the value of the published config.json built in.
        MropeRule(_IMAGE, _VIDEO, spatial_merge_size=2, tokens_per_second=case.get("tokens_per_second", 2)),
        image_grid_thw=torch.tensor(grids["image"]) if grids["image"] else None,
        video_grid_thw=torch.tensor(grids["video"]) if grids["video"] else None,
        second_per_grid_ts=case["second_per_grid_ts"],
    )
    expected = case["position_ids"] if isinstance(case["position_ids"][0][0], list) else [case["position_ids"]]
    for row_index, reference in enumerate(expected):
        quantity = "position_ids" if len(expected) == 1 else f"position_ids_{row_index}"
        yield compare(name, quantity, positions[:, row_index, mask[row_index]], reference, tolerance=0)
    yield compare(name, "rope_deltas", deltas.flatten(), np.ravel(case["rope_deltas"]), tolerance=0)
