import pytest
import torch

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.models.vggt import VGGT

GRID = (3, 5)


def test_patch_tokens_of_a_frame_do_not_depend_on_the_others(small_model: VGGT, images: torch.Tensor) -> None:
    with torch.inference_mode():
        together = small_model.aggregator.embed(images)
        alone = small_model.aggregator.embed(images[1:, 2:])
    assert together.shape == (2, 3, 15, 32)
    torch.testing.assert_close(together[1:, 2:], alone)


def test_layers_kept_are_those_asked_for_and_later_blocks_do_not_run(small_model: VGGT, images: torch.Tensor) -> None:
    aggregator = small_model.aggregator
    ran = []
    for index, block in enumerate(aggregator.global_blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    with torch.inference_mode():
        patch_tokens = aggregator.embed(images)
        some = aggregator.trunk(patch_tokens, GRID, (0, 2))
        assert ran == [0, 1, 2]
        every = aggregator.trunk(patch_tokens, GRID, range(4))
    assert sorted(some) == [0, 2]
    assert some[2].shape == (2, 3, aggregator.patch_start + 15, 64)
    assert torch.equal(some[2], every[2])


def test_frames_after_the_first_may_change_places(small_model: VGGT, images: torch.Tensor) -> None:
    order = [0, 2, 1]
    with torch.inference_mode():
        plain = small_model.aggregator(images, (3,))[3]
        shuffled = small_model.aggregator(images[:, order], (3,))[3]
    torch.testing.assert_close(shuffled, plain[:, order])


def test_the_first_frame_is_the_reference(small_model: VGGT, images: torch.Tensor) -> None:
    order = [1, 0, 2]
    with torch.inference_mode():
        plain = small_model.aggregator(images, (3,))[3]
        swapped = small_model.aggregator(images[:, order], (3,))[3]
    assert float((swapped - plain[:, order]).norm() / plain.norm()) > 1e-3


def test_patches_know_their_place(small_model: VGGT) -> None:
    # The same content one patch further right must not just give the same tokens one patch further right.
    strip = torch.rand(1, 1, 3, 14, 14, generator=torch.Generator().manual_seed(2)).repeat(1, 1, 1, 3, 5)
    with torch.inference_mode():
        tokens = small_model.aggregator(strip, (3,))[3][0, 0, 5:].unflatten(0, GRID)
    assert not torch.allclose(tokens[0, 1], tokens[0, 2], atol=1e-3)
    assert not torch.allclose(tokens[0, 1], tokens[1, 1], atol=1e-3)


@pytest.mark.parametrize(
    "shape", [(1, 2, 3, 42, 71), (1, 2, 3, 41, 70), (1, 2, 4, 42, 70), (2, 3, 42, 70), (1, 2, 3, 0, 14)]
)
def test_images_of_a_wrong_shape_are_refused(small_model: VGGT, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="VGGT takes images"):
        small_model.aggregator.embed(torch.zeros(shape))


@pytest.mark.parametrize("layers", [(), (4,), (-1, 2)])
def test_unknown_layers_are_refused(small_model: VGGT, images: torch.Tensor, layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="name some of 0 to 3"):
        small_model.aggregator(images, layers)


def test_a_grid_that_does_not_fit_is_refused(small_model: VGGT, images: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="grid of 5x4"):
        small_model.aggregator.trunk(small_model.aggregator.embed(images), (5, 4), (0,))
