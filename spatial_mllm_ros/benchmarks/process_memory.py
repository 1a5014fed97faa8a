"""How much memory a piece of work takes at most, on the device where it runs."""

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
    """Runs ``work``; its result, and by how much memory grew at its highest.

    Memory is that of the GPU where there is one, else Linux's resident set, whose high-water mark is reset first.
    What the allocator kept of memory freed earlier goes back to the system before that: it would be used again
    without the resident set growing, and the work would seem to need nothing.

    Raises:
        SpatialMllmError: this system does not tell.
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
