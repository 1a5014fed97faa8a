"""A ROS domain that no other process of this machine uses: no foreign cameras, and nobody else's /spatial_query."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from spatial_mllm_ros.errors import ConfigurationError

_DOMAINS = 101  # the ports of higher domains are among those that Linux gives to any program


def claim_domain() -> int:
    """A ROS domain, 1 to 101, that this process keeps until it ends.

    Every domain has a file in the folder for temporary files; the process holds a lock on it, which the kernel releases
    however the process ends.

    Raises:
        ConfigurationError: other processes hold all domains.
    """
    for offset in range(_DOMAINS):
        domain = 1 + (os.getpid() + offset) % _DOMAINS
        path = Path(tempfile.gettempdir()) / f"spatial_mllm_ros_domain_{domain}.lock"
        try:
            lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        except OSError:
            continue  # Linux refuses this on the file of another user, so that user's processes use the domain
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        return domain  # the descriptor stays open, and with it the lock
    raise ConfigurationError(f"Other processes use all {_DOMAINS} ROS domains; end one, or set ROS_DOMAIN_ID.")


def use_own_domain() -> None:
    """Keeps this process and those that it starts on this machine and, unless ROS_DOMAIN_ID is set, on an own domain.

    Raises:
        ConfigurationError: see ``claim_domain``.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not os.environ.get("ROS_DOMAIN_ID"):
        os.environ["ROS_DOMAIN_ID"] = str(claim_domain())
