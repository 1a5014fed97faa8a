"""Downloads published weights by name: the licence is accepted first, and every file is checked by its hash."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.storage import sha256_of, write_json

_LOG = logging.getLogger(__name__)
RECORD_NAME = "fetched.json"
DEFAULT_ENDPOINT = "https://huggingface.co"
#: Everything that a checkpoint folder needs. Weights as pickles, pictures and code are not fetched.
_NEEDED = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json", "chat_template.jinja"),
    *("README.md", "LICENSE*", "LICENCE*", "NOTICE*"),
)
_SPARE_BYTES = 500_000_000  # other programs need some of the disk too


@dataclass(frozen=True)
class Published:
    """Where published weights are.

    Attributes:
        repository: owner/name on the hub.
        terms: what the licence allows, in a few words; the licence that the hub states is shown when fetching.
    """

    repository: str
    terms: str


_DERIVED = "derived from Qwen2.5-VL-3B and VGGT-1B: non-commercial"
#: The checkpoints with a name of their own: those whose layout ``layouts`` knows, published as safetensors.
PUBLISHED = {
    "spatial-mllm-v1.1-135k": Published("Diankun/Spatial-MLLM-v1.1-Instruct-135K", _DERIVED),
    "spatial-mllm-v1.1-820k": Published("Diankun/Spatial-MLLM-v1.1-Instruct-820K", _DERIVED),
    "spatial-mllm-subset-sft": Published("Diankun/Spatial-MLLM-subset-sft", _DERIVED),
    "vggt-1b": Published("facebook/VGGT-1B", "non-commercial"),
    "qwen2.5-vl-3b": Published("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen Research License: non-commercial"),
    "qwen2.5-vl-7b": Published("Qwen/Qwen2.5-VL-7B-Instruct", "Apache-2.0"),
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
    """Downloads a checkpoint; called again after an interruption, it goes on where the download ended.

    ``huggingface_hub.snapshot_download`` does the transfer. It compares sizes and not contents, and it does not look at
    the licence or at the room on the disk: these three are checked here.

    The server is that of the environment variable HF_ENDPOINT, an access token that of HF_TOKEN.

    Args:
        name: a key of ``PUBLISHED``, or the owner/repository of any other model, which may not be one that this package
            can load.
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
    files = _needed_files(info, published.repository)
    licence = _licence(info)
    _LOG.info("%s: licence %s (%s).", published.repository, licence, published.terms)
    if not accept_licence:
        raise CheckpointError(
            f"The weights of {published.repository} have the licence {licence} ({published.terms}); read it at "
            f"{endpoint}/{published.repository}, and add --accept-licence if you accept it."
        )
    waiting = [file for file in files if not _is_whole(out / file.rfilename, file)]
    _check_room(out, sum(_size(file) for file in waiting))
    _download(published.repository, str(info.sha), waiting, out, endpoint)
    shutil.rmtree(out / ".cache", ignore_errors=True)  # the hub client's notes on unfinished files
    fetched = Fetched(
        folder=str(out),
        repository=published.repository,
        revision=str(info.sha),
        licence=licence,
        sha256={file.rfilename: sha256_of(out / file.rfilename) for file in files},
    )
    record = {**asdict(fetched), "endpoint": endpoint, "licence_accepted": True}
    record.pop("folder")
    write_json(out / RECORD_NAME, record)
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


def _needed_files(info: ModelInfo, repository: str) -> list[RepoSibling]:
    found = [
        file
        for file in info.siblings or ()
        if "/" not in file.rfilename and any(fnmatch(file.rfilename, pattern) for pattern in _NEEDED)
    ]
    if not any(file.rfilename.endswith(".safetensors") for file in found):
        raise CheckpointError(
            f"{repository} holds no safetensors file at {info.sha}; weights as pickles are not read here."
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


def _download(repository: str, revision: str, files: Sequence[RepoSibling], out: Path, endpoint: str) -> None:
    names = [file.rfilename for file in files]
    for name in names:
        (out / name).unlink(missing_ok=True)  # it is not the published one
    if names:
        try:
            snapshot_download(repository, revision=revision, local_dir=out, endpoint=endpoint, allow_patterns=names)
        except GatedRepoError as error:
            raise CheckpointError(_gated(repository, endpoint)) from error
        except Exception as error:  # see _described; the client also wraps network errors in several types of its own
            raise CheckpointError(
                f"The files of {repository} could not be fetched ({error}); run the same command again to go on."
            ) from error
    for file in files:
        if not _is_whole(out / file.rfilename, file):
            (out / file.rfilename).unlink(missing_ok=True)
            raise CheckpointError(
                f"{file.rfilename} arrived with another hash than {repository} publishes, and was removed; run the "
                "same command again, and if it happens again do not trust the server."
            )


def _is_whole(path: Path, file: RepoSibling) -> bool:
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    if file.lfs is not None:
        return sha256_of(path) == file.lfs.sha256
    return file.blob_id is None or _git_sha1_of(path) == file.blob_id


def _git_sha1_of(path: Path) -> str:
    """SHA-1 by which git names the content of a file; the hub has no other hash of its small files."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _size(file: RepoSibling) -> int:
    return file.size or (file.lfs.size if file.lfs is not None else 0) or 0


def _gated(repository: str, endpoint: str) -> str:
    return (
        f"{repository} gives access on request: ask for it at {endpoint}/{repository}, then set HF_TOKEN to a token of "
        "your account."
    )
