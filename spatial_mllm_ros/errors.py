"""The exceptions that leave this package: each names what went wrong, with which value, and what to do about it."""

from __future__ import annotations

from typing import ClassVar


class SpatialMllmError(Exception):
    """Base of every exception that this package raises on purpose.

    ``code`` is a stable, upper-case word for logs, diagnostics and exit messages; the text of the exception is one
    or more full sentences for a person.
    """

    code: ClassVar[str] = "ERROR"


class ConfigurationError(SpatialMllmError):
    """A parameter or option has a value outside its allowed range, or two of them contradict each other."""

    code = "CONFIGURATION"


#: Packages that only the tools import: the extra ``tools`` of the package installs them.
TOOL_PACKAGES = frozenset({"jinja2", "markupsafe", "matplotlib", "rosbags", "shapely", "tqdm"})


def without_tools(error: ModuleNotFoundError) -> ConfigurationError:
    """What to say about a module that is not there: which extra has it.

    Raises:
        ModuleNotFoundError: ``error``, where its module is not one of the tools'.
    """
    package = (error.name or "").partition(".")[0]
    if package not in TOOL_PACKAGES:
        raise error
    return ConfigurationError(
        f"This command needs the package {package}, which the node does not need; install the tools' packages with: "
        "pip install 'spatial-mllm-ros[tools]'"
    )


class FrameRejectedError(SpatialMllmError):
    """A camera message cannot become a frame.

    ``cause`` is a short machine-readable word (``encoding``, ``size``, ``step``, ``payload``, ``stamp``, ...) by which
    rejected frames are counted.
    """

    code = "FRAME_REJECTED"

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class SourceError(SpatialMllmError):
    """A recording (RGB-D folder, image folder, video, bag) or one of its files cannot be read."""

    code = "SOURCE"


class CheckpointError(SpatialMllmError):
    """A checkpoint folder is absent, damaged, incomplete, or does not have the keys and shapes that its model needs."""

    code = "CHECKPOINT"


class QuestionError(SpatialMllmError):
    """A question cannot be asked as it stands: empty, too long, control characters, malformed options."""

    code = "INVALID_QUESTION"


class EncoderError(SpatialMllmError):
    """The spatial encoder failed on a window of frames, or gave values that cannot be used."""

    code = "ENCODER"


class WorkerLostError(SpatialMllmError):
    """The process or thread that does the work of the models has ended in the middle of it; it is started again."""

    code = "WORKER_LOST"


class SampleRejectedError(SpatialMllmError):
    """A line of training data cannot be used; the run leaves it out, counts it and goes on.

    ``cause`` is a short machine-readable word (``json``, ``fields``, ``media_missing``, ``media``, ``too_long``, ...)
    by which rejected samples are counted.
    """

    code = "SAMPLE_REJECTED"

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class TrainingError(SpatialMllmError):
    """A training run cannot start or go on: no usable data, a run folder of another run, a loss that is not finite."""

    code = "TRAINING"


class EngineError(SpatialMllmError):
    """An exported model or a built engine cannot be made, trusted or run.

    ``cause`` is a short machine-readable word: ``missing``, ``truncated``, ``tampered``, ``stale``, ``foreign``,
    ``unsafe``, ``unavailable``, ``export``, ``build``, ``parity``, ``run``, ``numbers``, ``shape``.
    """

    code = "ENGINE"

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class StorageError(SpatialMllmError):
    """A scene cannot be saved, or a saved one cannot be loaded.

    ``cause`` is a short machine-readable word: ``path`` (not a place for a scene), ``occupied`` (a folder that is no
    saved scene is there), ``busy``, ``empty`` (nothing to save), ``disk``, ``permission``, ``missing``, ``truncated``,
    ``tampered``, ``foreign``, ``newer`` (of a later version), ``settings`` (does not fit the running scene).
    """

    code = "STORAGE"

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause
