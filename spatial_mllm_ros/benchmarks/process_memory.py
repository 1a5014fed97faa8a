"""Measures the largest growth of memory during a piece of work, on the device where it runs."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from spatial_mllm_ros.errors import SpatialMllmError

Result = TypeVar("Result")
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def peak_bytes(work: Callable[[], Result]) -> tuple[Result, float]:
    """Runs ``work``; returns its result and the largest growth of memory meanwhile, in bytes.

    The memory of the GPU is measured where there is one, otherwise Linux's resident set, whose peak is reset first.
    Memory that the allocator keeps from earlier work is returned to the system before that: otherwise the work would
    use it again and would seem to need nothing.

    Raises:
        SpatialMllmError: this system does not report its memory.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = work()
        return result, float(torch.cuda.max_memory_allocated() - before)
    _return_freed_memory()
    try:
        _CLEAR.write_text("5")  # proc(5): resets the peak of the resident set
        before_bytes = _status_bytes("VmRSS")
    except (OSError, ValueError) as error:
        raise SpatialMllmError(f"The memory of this process cannot be measured here: {error}.") from error
    result = work()
    return result, max(0.0, _status_bytes("VmHWM") - before_bytes)


def _return_freed_memory() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other C libraries keep little
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(field)
    return 1024.0 * int(found.group(1))
