import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion, merged_rows
from spatial_mllm_ros.rooms.world.catalog import LABELS
from spatial_mllm_ros.training.supervision.tokens import UNIT_M, TokenHead, token_targets


def test_the_targets_of_a_patch_are_what_its_pixels_show_and_where(clip):
    targets = token_targets(clip)
    assert targets.grid == (6, 8)
    assert targets.shown.shape == (4, 48, len(LABELS))
    fx, fy, cx, cy = (getattr(clip.intrinsics, name) for name in ("fx_px", "fy_px", "cx_px", "cy_px"))
    first_from_scene = np.linalg.inv(clip.scene_from_cam[0])
    named = 0
    for frame, patch in itertools.product(range(4), range(0, 48, 5)):
        row, column = divmod(patch, 8)
        block = (frame, slice(14 * row, 14 * row + 14), slice(14 * column, 14 * column + 14))
        ids, counts = np.unique(clip.instance[block].numpy(), return_counts=True)
        share = Counter()
        for number, count in zip(ids, counts, strict=True):
            if number > 0:
                share[clip.annotation.objects[number - 1].label] += count / 14**2
        expected = {label for label, part in share.items() if part >= 0.04}
        assert {LABELS[k] for k in torch.nonzero(targets.shown[frame, patch])[:, 0]} == expected
        named += len(expected)
        z = clip.depth_m[block].numpy()
        v, u = np.mgrid[block[1], block[2]]
        in_camera = np.stack(((u - cx) / fx * z, (v - cy) / fy * z, z, np.ones_like(z)), -1)
        in_first = in_camera @ (first_from_scene @ clip.scene_from_cam[frame]).T
        for values, wanted in ((targets.in_camera_m, in_camera), (targets.patches_m, in_first)):
            mean = np.nanmean(wanted[..., :3].reshape(-1, 3), axis=0)
            assert values[frame, patch].numpy() == pytest.approx(mean, abs=2e-3)
    assert named >= 5


def test_the_head_orders_the_eight_patches_of_a_token_by_frame_row_and_column(clip):
    targets = token_targets(clip)
    head = TokenHead(16)
    tokens, words = torch.randn(2 * 3 * 4, 16), torch.randn(len(LABELS), 16)
    token, patch_in_token = 17, 6  # frame pair 1, row 1, column 1; second frame, lower row, left column
    frame, row, column = 3, 3, 2
    place = targets.patches_m[frame, row * 8 + column]
    with torch.no_grad():
        for parameter in head.places.parameters():
            parameter.zero_()
        head.places.bias.view(8, 6)[patch_in_token, 3:] = place / UNIT_M
    merged = merged_rows(targets.patches_m, targets.grid, Fusion.V1_0).view(-1, 8, 3)
    assert torch.equal(merged[token, patch_in_token], place)
    better = head.place_terms(tokens, targets)["place_loss"]
    other = replace(targets, patches_m=targets.patches_m.flip(1))
    assert better != head.place_terms(tokens, other)["place_loss"]
    # A token that is the sum of the words of what it shows is named better than one of other words.
    shown = merged_rows(targets.shown.float(), targets.grid, Fusion.V1_0).view(-1, 8, len(LABELS)).amax(1)
    right = head.name_terms(shown @ words, words, targets)["name_loss"]
    assert right < head.name_terms(shown.roll(1, dims=1) @ words, words, targets)["name_loss"]
