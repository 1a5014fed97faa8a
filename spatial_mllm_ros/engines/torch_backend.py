"""The backend that runs VGGT in torch: it is always there, takes every size, and is the reference of the others."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from spatial_mllm_ros.engines.backend import check_request
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.vggt import VGGT, VggtOutput, VggtPrediction


class TorchBackend:
    """Runs a ``VGGT`` where its weights are.

    Args:
        vggt: in evaluation mode. The backend does not own it: ``close`` leaves it as it is.
        compiled: through ``torch.compile``. Each image size is compiled once, when it is first asked for, which takes a
            minute or more and a C++ compiler on the CPU; then any number of frames from 2 up is served by one graph.
        compiler: back end of ``torch.compile``.
    """

    def __init__(self, vggt: VGGT, *, compiled: bool = False, compiler: str = "inductor") -> None:
        self.name = "torch-compiled" if compiled else "torch"
        self._vggt: VGGT | None = vggt
        self._run: Callable[..., VggtPrediction] = vggt
        if compiled:
            self._run = torch.compile(vggt.forward, backend=compiler)

    def refusal(self, image_shape: tuple[int, ...], outputs: Collection[VggtOutput]) -> str:
        """See ``EngineBackend``."""
        if self._vggt is None:
            return "it has been closed"
        if len(image_shape) != 5 or image_shape[0] != 1 or image_shape[1] < 1 or image_shape[2] != 3:
            return f"it takes images [1, S, 3, H, W], not {list(image_shape)}"
        size = self._vggt.config.patch_size_px
        if any(side < size or side % size for side in image_shape[3:]):
            return f"it takes images whose sides are multiples of {size} px, not {image_shape[4]}x{image_shape[3]}"
        heads = {VggtOutput.POSE: "camera_head", VggtOutput.DEPTH: "depth_head", VggtOutput.POINTS: "point_head"}
        for output in outputs:
            if output in heads and getattr(self._vggt, heads[output]) is None:
                return f"the model has no {heads[output]}"
        return ""

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """See ``EngineBackend``."""
        check_request(self, images, outputs)
        try:
            # not inference_mode: torch.compile guards on it, and its tensors could not be used by whoever trains
            with torch.no_grad():
                return self._run(images, tuple(sorted(outputs)))
        except torch.OutOfMemoryError:
            raise
        except ConfigurationError as error:
            raise EngineError("run", f"The backend {self.name} is set up wrongly: {error}") from error
        except RuntimeError as error:
            raise EngineError(
                "run", f"The backend {self.name} failed on {images.shape[1]} frames: {_first_line(error)}"
            ) from error

    def close(self) -> None:
        """See ``EngineBackend``."""
        self._vggt = None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
