"""Scorers and prompts against ``metrics/``: every case must score exactly as the scorer that it names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_ros.scoring.scorers.base import ScoredQuestion, UnscorableError
from spatial_mllm_ros.scoring.scorers.captions import bleu, bleu_statistics, cider, rouge_l
from spatial_mllm_ros.scoring.scorers.catalogue import scorer_named
from spatial_mllm_ros.verification.checks import Check, compare

# Column of a file of VSI-Bench cases -> the scorer it names.
_VSI_COLUMNS = {
    "official_thinking_in_space": "thinking-in-space",
    "score_lmms_eval_canonical": "thinking-in-space",
    "lmms_eval_2026_02": "lmms-eval-2026-02",
    "lmms_eval_2026_08": "lmms-eval-2026-08",
    "vlmevalkit_rule": "vlmevalkit",
    "spatial_mllm_v1_1": "spatial-mllm-v1.1",
    "score_v11": "spatial-mllm-v1.1",
    "score_v10": "spatial-mllm-v1.0",
}
_SAME = 1e-12  # sums in another order; scores of single questions are compared with tolerance 0


def checks(root: Path) -> Iterator[Check]:
    """One row per case and scorer; nothing for files that are absent."""
    folder = root / "metrics"
    for name, of_file in (
        ("vsibench_cases.json", _vsi_bench),
        ("vsibench_metric_cases.json", _vsi_bench),
        ("revsi_vsisuper_metric_cases.json", _revsi_and_vsi_super),
        ("scanqa_cases.json", _scanqa),
        ("prompts.json", _prompts),
    ):
        path = folder / name
        if path.is_file():
            yield from of_file(f"metrics/{path.stem}", json.loads(path.read_text(encoding="utf-8")))


def _vsi_bench(name: str, content: Mapping[str, Any]) -> Iterator[Check]:
    yield from _benchmark_prompts(name, "vsi-bench", content.get("prompts_default", {}))
    for case in content.get("cases", ()):
        for column in _VSI_COLUMNS.keys() & case.keys():
            scorer = scorer_named("vsi-bench", _VSI_COLUMNS[column])
            what = f"{case['question_type']}: {case['prediction']!r} for {case['ground_truth']!r}"
            yield _score_check(f"{name}/{column}", what, scorer.score, case, case[column])
    yield from _grid(name, "thinking-in-space", content.get("mra_grid[pred,gt,score]", ()))
    yield from _grid(name, "spatial-mllm-v1.1", content.get("mra_grid_pred_target_score", ()))
    for number, case in enumerate(content.get("aggregates_v11_calculate_metrics", ())):
        yield from _aggregate(f"{name}/aggregate_{number}", case)


def _score_check(
    case_name: str,
    what: str,
    score: Callable[[str, str, tuple[str, ...]], float],
    case: Mapping[str, Any],
    expected: Any,
    truths: Iterable[object] | None = None,
) -> Check:
    """Identical score; null is NaN, {"raises": E} is an UnscorableError that names E."""
    answers = tuple(str(t) for t in (truths if truths is not None else (case.get("ground_truth"),)))
    raised = ""
    try:
        ours = score(case["question_type"], case["prediction"], answers)
    except UnscorableError as error:
        ours, raised = math.nan, error.reference_error
    wanted = expected.get("score") if isinstance(expected, Mapping) else expected
    if isinstance(expected, Mapping) and "raises" in expected:
        named = str(expected["raises"]).partition(":")[0].strip()
        distance = 0.0 if raised == named else math.inf
        return Check(case_name, f"{what} raises {named}", distance, distance, "max_abs", 0.0, raised == named)
    reference = math.nan if wanted is None else float(wanted)
    if "v1" in case_name.rpartition("/")[2]:
        # float32 scores, which one of the files writes in full and the other in the fewest digits
        return compare(case_name, what, np.float32(ours), np.float32(reference), tolerance=0)
    return compare(case_name, what, ours, reference, tolerance=0)


def _grid(name: str, scorer_name: str, grid: Iterable[tuple[float, float, float]]) -> Iterator[Check]:
    rows = list(grid)
    if rows:
        score = scorer_named("vsi-bench", scorer_name).score
        ours = [score("object_abs_distance", repr(said), (repr(truth),)) for said, truth, _ in rows]
        yield compare(name, f"grid of {scorer_name}", ours, [row[2] for row in rows], tolerance=0)


def _aggregate(case_name: str, case: Mapping[str, Any]) -> Iterator[Check]:
    scored = [ScoredQuestion(kind, str(i % 5), "", (), score) for i, (kind, score) in enumerate(case["results"])]
    found = {figure.name: figure for figure in scorer_named("vsi-bench", "spatial-mllm-v1.1").figures(scored)}
    for kind, wanted in case["metrics"]["per_question_type"].items():
        yield compare(case_name, kind, found[kind].value, wanted["score"], tolerance=_SAME)
        yield compare(case_name, f"count of {kind}", found[kind].questions, wanted["count"], tolerance=0)
    for part, which in (("acc", "choice"), ("mra", "numeric"), ("all", "all")):
        for average, wanted in case["metrics"][part].items():
            figure = found.get(f"{average}, {which}")
            # The reference writes 0 where there is no question to average; we give no figure.
            yield compare(case_name, f"{part} {average}", figure.value if figure else 0.0, wanted, tolerance=_SAME)


def _revsi_and_vsi_super(name: str, content: Mapping[str, Any]) -> Iterator[Check]:
    revsi = scorer_named("revsi")
    part = content.get("revsi", {})
    yield from _benchmark_prompts(f"{name}/revsi", "revsi", part.get("prompts", {}))
    scored = []
    for case in part.get("cases", ()):
        what = f"{case['question_type']}: {case['prediction']!r} for {case['ground_truth']!r}"
        yield _score_check(f"{name}/revsi", what, revsi.score, case, case["score"])
        truths = (case["ground_truth"],)
        score = revsi.score(case["question_type"], case["prediction"], truths)
        scored.append(ScoredQuestion(case["question_type"], "", case["prediction"], truths, score))
    found = {figure.name: figure.value for figure in revsi.figures(scored)}
    for key, wanted in part.get("aggregate_of_all_cases", {}).items():
        ours = found["macro, all" if key == "overall_acc" else key.removesuffix("_acc")]
        yield compare(f"{name}/revsi_aggregate", key, ours, wanted, tolerance=_SAME)
    vsi_super = scorer_named("vsi-super")
    for key, kind, column in (
        ("vsi_super_count", "count", "mra"),
        ("vsi_super_count_streaming", "count_streaming", "mra"),
        ("vsi_super_recall", "recall", "accuracy"),
    ):
        for case in content.get(key, ()):
            truths = case["answers"] if "answers" in case else (case["answer"],)
            what = f"{case['prediction']!r} for {', '.join(map(str, truths))}"
            row = {**case, "question_type": kind}
            yield _score_check(f"{name}/{key}", what, vsi_super.score, row, case[column], truths)


def _scanqa(name: str, content: Mapping[str, Any]) -> Iterator[Check]:
    items = [content["data"][key] for key in content["order"]]
    wanted, scorer = content["scores"], scorer_named("scanqa")
    texts = [item["prediction"].rstrip(".") for item in items]
    answers = [tuple(item["answers"]) for item in items]
    scored = [
        ScoredQuestion("", str(i), item["prediction"], truths, scorer.score("", item["prediction"], truths))
        for i, (item, truths) in enumerate(zip(items, answers, strict=True))
    ]
    found = {figure.name: figure for figure in scorer.figures(scored)}
    pairs = list(zip(texts, answers, strict=True))
    per_question = [bleu(bleu_statistics(text, truths)[None])[0] for text, truths in pairs]
    rows: dict[str, tuple[object, object]] = {
        "BLEU-1..4": ([found[f"BLEU-{n}"].value for n in range(1, 5)], wanted["bleu"]),
        "BLEU-1..4 per question": ([list(row) for row in zip(*per_question, strict=True)], wanted["bleu_per"]),
        "ROUGE-L": (found["ROUGE-L"].value, wanted["rouge"]),
        "ROUGE-L per question": ([rouge_l(text, truths) for text, truths in pairs], wanted["rouge_per"]),
        "CIDEr": (found["CIDEr"].value, wanted["cider"]),
        "CIDEr per question": (cider(texts, answers), wanted["cider_per"]),
        "EM": (found["EM"].value, wanted["em"]),
        "count": (found["EM"].questions, wanted["count"]),
    }
    for quantity, (ours, reference) in rows.items():
        yield compare(name, quantity, ours, reference, tolerance=_SAME)


def _prompts(name: str, content: Mapping[str, Any]) -> Iterator[Check]:
    from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
    from spatial_mllm_ros.models.spatial_mllm.prompts import user_text

    for number, case in enumerate(content.get("v11_user_text", ())):
        item = case["item"]
        options = [option.partition(". ")[2] for option in item.get("options", ())]
        same = user_text(item["question"], options, Fusion.V1_1) == case["text"]
        error = 0.0 if same else math.inf
        yield Check(name, f"v1.1 user text {number}", error, error, "max_abs", 0.0, same)


def _benchmark_prompts(name: str, benchmark: str, prompts: Mapping[str, str]) -> Iterator[Check]:
    """The harness's prompt for a made-up question, rebuilt from its own options."""
    from spatial_mllm_ros.models.spatial_mllm.connectors import Fusion
    from spatial_mllm_ros.scoring.datasets.question import BenchmarkQuestion, without_letters
    from spatial_mllm_ros.scoring.runner.prompts import PromptStyle, prompt_of

    for kind, wanted in prompts.items():
        options = wanted.partition("Options:\n")[2].split("\n")[:-1]
        question = BenchmarkQuestion(
            "0", benchmark, kind, "<QUESTION>", without_letters(options), ("",), "", Path("clip.mp4")
        )
        same = prompt_of(question, PromptStyle.BENCHMARK, Fusion.V1_1) == wanted
        error = 0.0 if same else math.inf
        yield Check(name, f"prompt of {kind}", error, error, "max_abs", 0.0, same)
