"""The files that are installed with the package, wherever that is, and the bundled checkpoint among them."""

from __future__ import annotations

from pathlib import Path

import spatial_mllm_ros
from spatial_mllm_ros.errors import CheckpointError

PACKAGE = "spatial_mllm_ros"
#: The bundled model, which runs where no other checkpoint is named.
CHECKPOINT = "tiny-rooms"


def installed_share() -> Path | None:
    """The installed ``share/spatial_mllm_ros``, found from where the package (or its generated interfaces) is.

    So it does not depend on AMENT_PREFIX_PATH. None where the package runs from a checkout that is not installed.
    """
    for package in spatial_mllm_ros.__path__:
        for prefix in Path(package).absolute().parents:
            if (prefix / "share" / PACKAGE / "package.xml").is_file():
                return prefix / "share" / PACKAGE
    return None


def bundled_checkpoint() -> Path:
    """The folder of the bundled model: that of the source checkout where the package runs from one, else the installed.

    Raises:
        CheckpointError: it is not there.
    """
    share = installed_share()
    roots = [Path(package).absolute().parent for package in spatial_mllm_ros.__path__]
    candidates = [root / "checkpoints" / CHECKPOINT for root in (*roots, *([share] if share else []))]
    for folder in candidates:
        if (folder / "config.json").is_file():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise CheckpointError(
        f"The bundled model {CHECKPOINT} is not in this installation (looked for {looked}). Install it again "
        "from a complete checkout, or name the folder of a model: --checkpoint, or the node's parameter checkpoint."
    )
