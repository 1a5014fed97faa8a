"""Published weights by name: licence first, then room on the disk, then the files, each checked by its hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling

from spatial_mllm_ros.errors import CheckpointError

_LOG = logging.getLogger(__name__)
RECORD_NAME = "fetched.json"
DEFAULT_ENDPOINT = "https://huggingface.co"
#: Everything a checkpoint folder needs; weights as pickles, pictures and demo code stay where they are.
_NEEDED = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json", "chat_template.jinja"),
    *("README.md", "LICENSE*", "LICENCE*", "NOTICE*"),
)
_SPARE_BYTES = 500_000_000  # a disk that is full to the last byte helps nobody
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Published:
    """Where published weights are.

    Attributes:
        repository: owner/name on the hub.
        terms: what the licence allows, in a few words; the licence that the hub states is shown when fetching.
        folder: the folder in the repository that holds the checkpoint; "" for the whole of it.
    """

    repository: str
    terms: str
    folder: str = ""


_DERIVED = "derived from Qwen2.5-VL-3B and VGGT-1B: non-commercial"
PUBLISHED = {
    "spatial-mllm-v1.1-135k": Published("Diankun/Spatial-MLLM-v1.1-Instruct-135K", _DERIVED),
    "spatial-mllm-v1.1-820k": Published("Diankun/Spatial-MLLM-v1.1-Instruct-820K", _DERIVED),
    "spatial-mllm-subset-sft": Published("Diankun/Spatial-MLLM-subset-sft", _DERIVED),
    "vggt-1b": Published("facebook/VGGT-1B", "non-commercial"),
    "vggt-1b-commercial": Published("facebook/VGGT-1B-Commercial", "VGGT commercial licence; access on request"),
    "qwen2.5-vl-3b": Published("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen Research License: non-commercial"),
    "qwen2.5-vl-7b": Published("Qwen/Qwen2.5-VL-7B-Instruct", "Apache-2.0"),
    "spa3-vlm": Published("hustvl/Spa3-VLM", _DERIVED, folder="spa3_vlm"),
}


@dataclass(frozen=True)
class Fetched:
    """What was fetched; also written to fetched.json.

    Attributes:
        folder: the checkpoint folder.
        repository: owner/name.
        revision: commit.
        licence: as the hub states it.
        sha256: file -> hash.
    """

    folder: str
    repository: str
    revision: str
    licence: str
    sha256: dict[str, str]


def fetch(name: str, out: Path, *, accept_licence: bool, revision: str | None = None) -> Fetched:
    """Downloads a checkpoint; called again after an interruption, it goes on where it was.

    The server is that of the environment variable HF_ENDPOINT, an access token that of HF_TOKEN.

    Args:
        name: a key of ``PUBLISHED``, or owner/repository.
        out: folder to write to; files in it that already have the right hash are kept.
        accept_licence: without it nothing is downloaded, and the error says what the licence is.
        revision: commit, branch or tag.

    Raises:
        CheckpointError: unknown name, licence not accepted, no room, no access, a server that cannot be reached, or a
            file whose hash is not the published one (it is removed).
    """
    if name not in PUBLISHED and "/" not in name:
        raise CheckpointError(f"There is no checkpoint named {name!r}; known are {', '.join(PUBLISHED)}.")
    published = PUBLISHED.get(name) or Published(name, "see the licence")
    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")
    info = _described(published.repository, endpoint, revision)
    files = _needed_files(info, published)
    licence = _licence(info)
    _LOG.info("%s: licence %s (%s).", published.repository, licence, published.terms)
    if not accept_licence:
        raise CheckpointError(
            f"The weights of {published.repository} have the licence {licence} ({published.terms}); read it at "
            f"{endpoint}/{published.repository}, and add --accept-licence if you accept it."
        )
    waiting = [file for file in files if not _is_whole(out / file.rfilename, file)]
    _check_room(out, sum(_size(file) for file in waiting))
    for file in waiting:
        _download(published.repository, str(info.sha), file, out, endpoint)
    shutil.rmtree(out / ".cache", ignore_errors=True)  # the hub client's notes on half-loaded files
    fetched = Fetched(
        folder=str(out / published.folder),
        repository=published.repository,
        revision=str(info.sha),
        licence=licence,
        sha256={file.rfilename: _digest(out / file.rfilename, "sha256") for file in files},
    )
    record = {**asdict(fetched), "endpoint": endpoint, "licence_accepted": True}
    record.pop("folder")
    (out / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return fetched


def _described(repository: str, endpoint: str, revision: str | None) -> ModelInfo:
    try:
        return HfApi(endpoint=endpoint).model_info(repository, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise CheckpointError(_gated(repository, endpoint)) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{endpoint} has no repository {repository}, or you may not see it.") from error
    except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{endpoint} cannot be asked for {repository}: {error}") from error
    except Exception as error:  # the HTTP library's own, which differs between releases of the hub client
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "requests", "httpcore"):
            raise
        raise CheckpointError(f"{endpoint} cannot be reached ({error}); check the network and HF_ENDPOINT.") from error


def _needed_files(info: ModelInfo, published: Published) -> list[RepoSibling]:
    prefix = f"{published.folder}/" if published.folder else ""
    found = [
        file
        for file in info.siblings or ()
        if file.rfilename.startswith(prefix)
        and "/" not in file.rfilename.removeprefix(prefix)
        and any(fnmatch(file.rfilename.removeprefix(prefix), pattern) for pattern in _NEEDED)
    ]
    if not any(file.rfilename.endswith(".safetensors") for file in found):
        raise CheckpointError(
            f"{published.repository} holds no safetensors file at {info.sha}; weights as pickles are not read here."
        )
    return sorted(found, key=lambda file: file.rfilename)


def _licence(info: ModelInfo) -> str:
    card = info.card_data
    if card is None:
        return "unknown"
    stated = card.get("license_name") or card.get("license") or "unknown"
    link = card.get("license_link")
    return f"{stated} ({link})" if link else str(stated)


def _check_room(out: Path, needed_bytes: int) -> None:
    existing = out
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed_bytes and needed_bytes + _SPARE_BYTES > free:
        raise CheckpointError(
            f"{needed_bytes / 1e9:.1f} GB are still to be fetched, but the disk of {out} has {free / 1e9:.1f} GB free "
            f"({_SPARE_BYTES / 1e9:.1f} GB of which stay free); make room, or choose another folder with --out."
        )


def _download(repository: str, revision: str, file: RepoSibling, out: Path, endpoint: str) -> None:
    path = out / file.rfilename
    path.unlink(missing_ok=True)  # it is not the published one
    try:
        hf_hub_download(repository, file.rfilename, revision=revision, local_dir=out, endpoint=endpoint)
    except GatedRepoError as error:
        raise CheckpointError(_gated(repository, endpoint)) from error
    except Exception as error:  # see _described; the client also wraps network errors in several types of its own
        raise CheckpointError(
            f"{file.rfilename} of {repository} could not be fetched ({error}); run the same command again to go on."
        ) from error
    if not _is_whole(path, file):
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{file.rfilename} arrived with another hash than {repository} publishes, and was removed; run the same "
            "command again, and if it happens again do not trust the server."
        )


def _is_whole(path: Path, file: RepoSibling) -> bool:
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    if file.lfs is not None:
        return _digest(path, "sha256") == file.lfs.sha256
    return file.blob_id is None or _digest(path, "git") == file.blob_id


def _digest(path: Path, kind: str) -> str:
    """Hash of a file: ``sha256``, or ``git``: the SHA-1 by which git names its content."""
    if kind == "sha256":
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _size(file: RepoSibling) -> int:
    return file.size or (file.lfs.size if file.lfs is not None else 0) or 0


def _gated(repository: str, endpoint: str) -> str:
    return (
        f"{repository} gives access on request: ask for it at {endpoint}/{repository}, then set HF_TOKEN to a token of "
        "your account."
    )
