"""The layout in which each benchmark is published: files of questions, their fields, folders of videos."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.recordings.sources import VIDEO_SUFFIXES
from spatial_mllm_ros.scoring.datasets.question import BenchmarkQuestion, without_letters
from spatial_mllm_ros.scoring.datasets.rows import Row, RowError, read_rows, text_of, texts_of

Values = Mapping[str, Any]
_ANSWER_BLOCK = re.compile(r"^\s*<answer>(.*)</answer>\s*$", re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """One published layout.

    Attributes:
        splits: names of the splits, the default first.
        files: (folder, split) -> annotation files.
        question: (row, folder of the videos, answers by question id) -> question; raises RowError.
        key: of the list of rows in a JSON object, see ``read_rows``.
        in_split: (row, split) -> whether the row belongs to the split.
        answers: (folder, split) -> annotations by question id, where they are in files of their own.
    """

    benchmark: str
    splits: tuple[str, ...]
    files: Callable[[Path, str], list[Path]]
    question: Callable[[Values, Path, Mapping[str, Any]], BenchmarkQuestion]
    key: str = ""
    in_split: Callable[[Values, str], bool] = lambda _values, _split: True
    answers: Callable[[Path, str], Mapping[str, Any]] = lambda _folder, _split: {}


def video_of(videos: Path, *names: str) -> Path:
    """The video file, or the folder of frames, of one of ``names`` (paths without suffix) below ``videos``.

    Raises:
        RowError: none of the names exists, or a name leads out of the folder.
    """
    for name in names:
        base = videos / name
        if not base.resolve().is_relative_to(videos.resolve()):
            raise RowError("missing_video", f"{name!r} leads out of the folder of the videos.")
        found = [base.with_name(base.name + suffix) for suffix in ("", *VIDEO_SUFFIXES)]
        for path in found:
            if path.exists() and path != videos:
                return path
    raise RowError("missing_video", f"there is no video or folder of frames {' or '.join(names)}.")


# -- VSI-Bench -------------------------------------------------------------------------------------------------------


def _vsi_files(folder: Path, split: str) -> list[Path]:
    own = [path for path in _files(folder, f"*{split}*") if split != "full"]
    plain = [path for path in _files(folder, "test*") if "pruned" not in path.stem and "debiased" not in path.stem]
    return own[:1] or plain[:1]


def _vsi_in_split(values: Values, split: str) -> bool:
    if split == "full":
        return True
    if "pruned" not in values:
        raise ConfigurationError(
            f"The questions have no field 'pruned', so the questions of the split {split!r} are not known; fetch the "
            "release of VSI-Bench with this field, or evaluate the split 'full'."
        )
    return bool(values["pruned"]) == (split == "pruned")


def _vsi_question(values: Values, videos: Path, _answers: Mapping[str, Any]) -> BenchmarkQuestion:
    dataset, scene = text_of(values, "dataset"), text_of(values, "scene_name")
    return BenchmarkQuestion(
        id=text_of(values, "id"),
        benchmark="vsi-bench",
        question_type=text_of(values, "question_type"),
        text=text_of(values, "question"),
        options=without_letters(texts_of(values, "options")),
        truths=(text_of(values, "ground_truth"),),
        scene=f"{dataset}/{scene}",
        video=video_of(videos, f"{dataset}/{scene}"),
    )


# -- Spatial-MLLM's own annotation of VSI-Bench ----------------------------------------------------------------------


def _spatial_mllm_question(values: Values, videos: Path, _answers: Mapping[str, Any]) -> BenchmarkQuestion:
    path, solution = text_of(values, "path"), text_of(values, "solution")
    kind = "original_question_type" if "original_question_type" in values else "question_type"
    inside = _ANSWER_BLOCK.match(solution)
    return BenchmarkQuestion(
        id=text_of(values, "problem_id"),
        benchmark="vsi-bench",
        question_type=text_of(values, kind),
        text=text_of(values, "problem"),
        options=without_letters(texts_of(values, "options")),
        truths=((inside[1] if inside else solution).strip(),),
        scene=str(Path(path).with_suffix("")),
        video=video_of(videos, str(Path(path).with_suffix(""))),
    )


# -- ReVSI and VSI-SUPER ---------------------------------------------------------------------------------------------


def _revsi_question(values: Values, videos: Path, _answers: Mapping[str, Any]) -> BenchmarkQuestion:
    scene, frames = text_of(values, "scene_id"), text_of(values, "num_frames")
    return BenchmarkQuestion(
        id=text_of(values, "id"),
        benchmark="revsi",
        question_type=text_of(values, "question_type"),
        text=text_of(values, "question"),
        options=without_letters(texts_of(values, "options")),
        truths=(text_of(values, "ground_truth"),),
        scene=scene,
        video=video_of(videos, f"{frames}_frame/{scene}"),
    )


def _vsi_super_question(values: Values, videos: Path, _answers: Mapping[str, Any]) -> BenchmarkQuestion:
    path = str(Path(text_of(values, "video_path")).with_suffix(""))
    options = without_letters(texts_of(values, "options"))
    many = texts_of(values, "answers")
    kind = "recall" if options else ("count_streaming" if many else "count")
    return BenchmarkQuestion(
        id=text_of(values, "id"),
        benchmark="vsi-super",
        question_type=kind,
        text=text_of(values, "question"),
        options=options,
        truths=many or (text_of(values, "answer"),),
        scene=path,
        video=video_of(videos, path),
    )


def _length_in_split(values: Values, split: str) -> bool:
    return split == "all" or split in (values.get("split"), values.get("type"))


# -- ScanQA and SQA3D ------------------------------------------------------------------------------------------------


def _scanqa_question(values: Values, videos: Path, _answers: Mapping[str, Any]) -> BenchmarkQuestion:
    scene = text_of(values, "scene_id")
    return BenchmarkQuestion(
        id=text_of(values, "question_id"),
        benchmark="scanqa",
        question_type="",
        text=text_of(values, "question"),
        options=(),
        truths=texts_of(values, "answers", required=True),
        scene=scene,
        video=video_of(videos, scene, f"scannet/{scene}"),
    )


def _sqa3d_answers(folder: Path, split: str) -> Mapping[str, Any]:
    path = _one(folder, f"*sqa_annotations_{split}*.json")
    rows = (row.values for row in read_rows(path, key="annotations") if isinstance(row, Row))
    return {str(values.get("question_id")): values for values in rows}


_FIRST_WORDS = ("what", "is", "how", "can", "which")  # the types of SQA3D's own table; all others are "other"


def _sqa3d_question(values: Values, videos: Path, answers: Mapping[str, Any]) -> BenchmarkQuestion:
    scene, number, text = text_of(values, "scene_id"), text_of(values, "question_id"), text_of(values, "question")
    annotation = answers.get(number)
    if annotation is None:
        raise RowError("missing_field", f"the annotations have no answer to the question {number}.")
    given = [item.get("answer") for item in annotation.get("answers", ()) if isinstance(item, dict)]
    truths = tuple(str(answer) for answer in given if answer)
    if not truths:
        raise RowError("missing_field", f"the annotation of the question {number} holds no answer.")
    first = text.lower().split()[0]
    situation = str(values.get("situation") or "").strip()
    return BenchmarkQuestion(
        id=number,
        benchmark="sqa3d",
        question_type=first if first in _FIRST_WORDS else "other",
        text=f"{situation} {text}".strip(),
        options=(),
        truths=truths,
        scene=scene,
        video=video_of(videos, scene, f"scannet/{scene}"),
    )


# -- finding the files -----------------------------------------------------------------------------------------------


def _files(folder: Path, *patterns: str) -> list[Path]:
    """Annotation files by name; JSON lines come before Parquet, which has the same rows and needs another package."""
    order = {".jsonl": 0, ".json": 1, ".parquet": 2}
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.suffix in order}
    return sorted(found, key=lambda path: (order[path.suffix], path.name))


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise SourceError(f"{folder} holds no {pattern}; give the folder with the files as they are published.")
    return found[0]


def _first(*patterns: str) -> Callable[[Path, str], list[Path]]:
    def files(folder: Path, split: str) -> list[Path]:
        return _files(folder, *(pattern.replace("SPLIT", split) for pattern in patterns))[:1]

    return files


LAYOUTS: Mapping[str, Layout] = {
    "vsi-bench": Layout("vsi-bench", ("full", "debiased", "pruned"), _vsi_files, _vsi_question, "", _vsi_in_split),
    "spatial-mllm": Layout("vsi-bench", ("full",), _first("*vsibench*", "eval*"), _spatial_mllm_question),
    "revsi": Layout("revsi", ("test",), _first("*SPLIT*"), _revsi_question),
    "vsi-super": Layout(
        "vsi-super",
        ("all", *(f"{m}mins{s}" for m in (10, 30, 60, 120, 240) for s in ("", "_streaming"))),
        _first("test*", "*vs[cr]*"),
        _vsi_super_question,
        "",
        _length_in_split,
    ),
    "scanqa": Layout("scanqa", ("val", "train", "test_w_obj"), _first("ScanQA_v1.0_SPLIT*"), _scanqa_question),
    "sqa3d": Layout(
        "sqa3d",
        ("test", "val", "train"),
        _first("*balanced_questions_SPLIT*"),
        _sqa3d_question,
        "questions",
        answers=_sqa3d_answers,
    ),
}
