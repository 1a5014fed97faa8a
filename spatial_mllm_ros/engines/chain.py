"""Several backends in order of preference. The first that takes a request answers it, and its numbers are checked."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from spatial_mllm_ros.engines.backend import EngineBackend, tensors_of
from spatial_mllm_ros.errors import ConfigurationError, EngineError
from spatial_mllm_ros.models.vggt import VggtOutput, VggtPrediction

_log = logging.getLogger(__name__)


class BackendChain:
    """Answers like one VGGT, with the first backend that takes the request.

    A backend that fails, or whose numbers are not finite, is closed for good once another one answers the same request:
    a robot must not lose every second window to a broken engine. If no backend answers, the images or the weights are
    at fault, and all backends stay. Not thread-safe: one thread asks.

    Args:
        backends: in order of preference; the last one should take every request.
    """

    def __init__(self, backends: Sequence[EngineBackend]) -> None:
        if not backends:
            raise ConfigurationError("BackendChain needs at least one backend.")
        self._backends = list(backends)
        self._faults: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()
        self.last_used = ""

    @property
    def name(self) -> str:
        """The backends in use, the preferred one first."""
        return " > ".join(backend.name for backend in self._backends)

    @property
    def has_engines(self) -> bool:
        """Whether anything but plain torch is among the backends."""
        return any(backend.name != "torch" for backend in self._backends)

    @property
    def fault(self) -> str:
        """Which backends are no longer used and why, for diagnostics; "" while all work."""
        return " ".join(self._faults.values())

    def __call__(self, images: Tensor, outputs: Collection[VggtOutput]) -> VggtPrediction:
        """Images [1, S, 3, H, W] in [0, 1] -> the outputs asked for, all finite.

        Raises:
            EngineError: no backend takes the request, or none answers it with finite numbers.
            torch.OutOfMemoryError: of the backend that ran; fewer frames may fit.
        """
        failed: list[tuple[EngineBackend, EngineError]] = []
        refused: list[str] = []
        for backend in list(self._backends):
            if refusal := backend.refusal(tuple(images.shape), outputs):
                self._tell_once(backend, refusal)
                refused.append(f"{backend.name}: {refusal}")
                continue
            try:
                prediction = backend(images, outputs)
                _check_numbers(backend, prediction, outputs)
            except EngineError as error:
                failed.append((backend, error))
                continue
            for broken, reason in failed:
                self._drop(broken, reason, instead=backend)
            self.last_used = backend.name
            return prediction
        if failed:
            raise EngineError(failed[0][1].cause, " ".join(str(why) for _, why in failed))
        raise EngineError("shape", f"No backend takes this request: {'; '.join(refused)}.")

    def last_layer(self, images: Tensor) -> Tensor:
        """Images [1, S, 3, H, W] in [0, 1] -> last aggregator layer [1, S, P, 2 D], special tokens first."""
        layer = self(images, (VggtOutput.LAST_LAYER,)).last_layer
        if layer is None:  # _check_numbers has seen it
            raise EngineError("run", f"The backend {self.last_used} gave no last layer.")
        return layer

    def close(self) -> None:
        """Closes all backends."""
        for backend in self._backends:
            backend.close()

    def _drop(self, broken: EngineBackend, why: EngineError, *, instead: EngineBackend) -> None:
        sentence = f"The backend {broken.name} is no longer used, {instead.name} runs in its place: {why}"
        self._faults[broken.name] = sentence
        self._backends.remove(broken)
        broken.close()
        _log.error("%s", sentence)

    def _tell_once(self, backend: EngineBackend, reason: str) -> None:
        if (backend.name, reason) not in self._told and len(self._told) < 100:
            self._told.add((backend.name, reason))
            _log.info("The backend %s was passed over: %s.", backend.name, reason)


def _check_numbers(backend: EngineBackend, prediction: VggtPrediction, outputs: Collection[VggtOutput]) -> None:
    for name, tensor in tensors_of(prediction, outputs).items():
        if not bool(torch.isfinite(tensor).all()):
            count = int(tensor.numel() - torch.isfinite(tensor).sum())
            raise EngineError(
                "numbers",
                f"The backend {backend.name} gave {count} of {tensor.numel()} values of {name} that are not finite.",
            )
