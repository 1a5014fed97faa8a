"""A ROS domain that no other process of this machine uses: no foreign cameras, and nobody else's /spatial_query."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.storage import locked

_DOMAINS = 101  # the ports of higher domains are among those that Linux gives to any program
_kept = contextlib.ExitStack()  # the locks of this process, until it ends


def claim_domain() -> int:
    """A ROS domain, 1 to 101, that this process keeps until it ends.

    Every domain has a file in the folder for temporary files; the process holds a lock on it, which the kernel releases
    however the process ends.

    Raises:
        ConfigurationError: other processes hold all domains.
    """
    for offset in range(_DOMAINS):
        domain = 1 + (os.getpid() + offset) % _DOMAINS
        # Another process keeps it, or another user, whose file this one may not open: then it is that user's domain.
        with contextlib.suppress(OSError):
            _kept.enter_context(locked(Path(tempfile.gettempdir()) / f"spatial_mllm_ros_domain_{domain}.lock"))
            return domain
    raise ConfigurationError(f"Other processes use all {_DOMAINS} ROS domains; end one, or set ROS_DOMAIN_ID.")


def use_own_domain() -> None:
    """Keeps this process and those that it starts on this machine and, unless ROS_DOMAIN_ID is set, on an own domain.

    Raises:
        ConfigurationError: see ``claim_domain``.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not os.environ.get("ROS_DOMAIN_ID"):
        os.environ["ROS_DOMAIN_ID"] = str(claim_domain())
