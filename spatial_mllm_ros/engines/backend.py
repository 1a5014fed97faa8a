"""The interface of the backends that run VGGT, and a fake one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor

from spatial_mllm_ros.engines.profile import TENSORS_OF, EngineProfile
from spatial_mllm_ros.errors import EngineError
from spatial_mllm_ros.models.vggt import VggtOutput, VggtPrediction


class EngineBackend(Protocol):
    """One way of running VGGT. It says beforehand which requests it does not take."""

    @property
    def name(self) -> str:
        """For logs and reports, e.g. ``torch``, ``onnxruntime-cpu``, ``tensorrt``."""
        ...

    def refusal(self, image_shape: tuple[int, ...], outputs: Collection[VggtOutput]) -> str:
        """Why this backend takes no such request, as part of a sentence; "" when it does."""
        ...

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """Images [1, S, 3, H, W] in [0, 1] -> the outputs asked for, and no others, on the device of the images.

        The tensors belong to the caller: the next call does not change them.

        Raises:
            EngineError: ``shape``: the request is one that ``refusal`` names; ``run``: the runtime failed.
            torch.OutOfMemoryError: the device's memory does not hold this many frames.
        """
        ...

    def close(self) -> None:
        """Releases memory and runtime; every later call is refused. It may be called twice."""
        ...


def check_request(backend: EngineBackend, images: Tensor, outputs: Collection[VggtOutput]) -> None:
    """For the beginning of ``__call__``.

    Raises:
        EngineError: ``shape``.
    """
    if reason := backend.refusal(tuple(images.shape), outputs):
        raise EngineError("shape", f"The backend {backend.name} cannot take this request: {reason}.")


def prediction_of(tensors: Mapping[str, Tensor], outputs: Collection[VggtOutput]) -> VggtPrediction:
    """The outputs asked for, out of tensors by name."""
    return VggtPrediction(**{name: tensors[name] for output in outputs for name in TENSORS_OF[output]})


def tensors_of(prediction: VggtPrediction, outputs: Collection[VggtOutput]) -> dict[str, Tensor]:
    """Inverse of ``prediction_of``.

    Raises:
        EngineError: ``run``: an output asked for is missing.
    """
    found: dict[str, Tensor] = {}
    for output in outputs:
        for name in TENSORS_OF[output]:
            tensor = getattr(prediction, name)
            if tensor is None:
                raise EngineError("run", f"A backend was asked for {output.value} but gave no {name}.")
            found[name] = tensor
    return found


class FakeBackend:
    """A backend without weights: it makes plausible numbers of the right shapes from the mean colours of the images.

    Args:
        profile: the requests that it takes; None for any number of frames from 1.
        spoil: changes the tensors, by name, before they are returned, to inject faults.
    """

    name = "fake"
    _TOKENS_WIDTH = 8
    _SPECIAL_TOKENS = 5

    def __init__(
        self, profile: EngineProfile | None = None, *, spoil: Callable[[dict[str, Tensor]], None] | None = None
    ) -> None:
        self._profile = profile
        self._spoil = spoil
        self._closed = False

    def refusal(self, image_shape: tuple[int, ...], outputs: Collection[VggtOutput]) -> str:
        """See ``EngineBackend``."""
        if self._closed:
            return "it has been closed"
        if self._profile is not None:
            return self._profile.refusal(image_shape, outputs)
        fits = len(image_shape) == 5 and image_shape[0] == 1 and not (image_shape[3] % 14 or image_shape[4] % 14)
        return "" if fits else f"it takes images [1, S, 3, H, W] in multiples of 14, not {list(image_shape)}"

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """See ``EngineBackend``."""
        check_request(self, images, outputs)
        frames, height, width = images.shape[1], images.shape[3], images.shape[4]
        mean = images.float().mean(dim=(2, 3, 4))  # [1, S]
        pose = torch.zeros(1, frames, 9, device=images.device)
        pose[..., 0], pose[..., 6], pose[..., 7], pose[..., 8] = mean, 1.0, 0.8, 1.0
        depth = 1 + images.float().mean(dim=2)
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        rays = torch.stack((u / width - 0.5, v / height - 0.5, torch.ones(height, width)), dim=-1).to(images.device)
        tokens = self._SPECIAL_TOKENS + (height // 14) * (width // 14)
        tensors = {
            "pose_encoding": pose,
            "depth": depth,
            "depth_confidence": 1 + depth,
            "points_world": depth[..., None] * rays,
            "points_confidence": 1 + depth,
            "last_layer": mean[..., None, None]
            + torch.linspace(0, 1, tokens * self._TOKENS_WIDTH)
            .to(images.device)
            .view(1, 1, tokens, self._TOKENS_WIDTH),
        }
        if self._spoil is not None:
            self._spoil(tensors)
        return prediction_of(tensors, outputs)

    def close(self) -> None:
        """See ``EngineBackend``."""
        self._closed = True
