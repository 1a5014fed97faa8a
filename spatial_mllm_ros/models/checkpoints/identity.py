"""Which weights a model runs: name, hash, licence, and whether they were ever trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNKNOWN_LICENCE = "unknown"
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LICENCE_LINE = re.compile(r"^license(?:_name)?:[ \t]*['\"]?([^'\"\n#]+)", re.MULTILINE)
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md")


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered."""

    name: str  #: checkpoint folder name
    sha256: str  #: ``storage.sha256_of`` the weight files
    architecture: str  #: e.g. "Spatial-MLLM v1.1"
    licence: str  #: of the weights; "unknown" where the folder does not say
    random_weights: bool  #: True: the weights were never trained, the text means nothing


def licence_of(folder: Path, config: Mapping[str, Any]) -> str:
    """The licence of the weights in ``folder`` as it says itself, or "unknown".

    Looked for in this order: ``license`` in config.json, in the front matter of README.md, the first line of a licence
    file.
    """
    if isinstance(config.get("license"), str) and config["license"].strip():
        return str(config["license"]).strip()
    readme = folder / "README.md"
    if readme.is_file():
        front = _FRONT_MATTER.match(readme.read_text(encoding="utf-8", errors="replace"))
        # `license: other` with a `license_name:` beside it is how model hubs mark licences of their own.
        stated = [found.strip() for found in _LICENCE_LINE.findall(front.group(1))] if front else []
        if stated:
            return next((name for name in stated if name != "other"), stated[0])
    for name in _LICENCE_FILES:
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip() for line in lines if line.strip()), UNKNOWN_LICENCE)
    return UNKNOWN_LICENCE
