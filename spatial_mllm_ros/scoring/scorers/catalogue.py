"""Every scorer by benchmark and name; the first of a benchmark is its default."""

from __future__ import annotations

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scoring.scorers import revsi, scanqa, vlmevalkit, vsi_bench, vsi_super
from spatial_mllm_ros.scoring.scorers.base import Scorer

_OFFICIAL_RULE = (
    "choices: the first word is the letter; numbers: mean relative accuracy of the first word, <= in float64"
)

SCORERS = (
    Scorer(
        "thinking-in-space",
        "vsi-bench",
        _OFFICIAL_RULE,
        "vision-x-nyu/thinking-in-space 51e089c",
        vsi_bench.score_officially,
        vsi_bench.figures,
    ),
    Scorer(
        "lmms-eval-2026-02",
        "vsi-bench",
        f"{_OFFICIAL_RULE} (equal to thinking-in-space)",
        "EvolvingLMMs-Lab/lmms-eval 04a5103",
        vsi_bench.score_officially,
        vsi_bench.figures,
    ),
    Scorer(
        "lmms-eval-2026-08",
        "vsi-bench",
        "choices: the first word is the letter; numbers: the first number or number word anywhere in the text",
        "EvolvingLMMs-Lab/lmms-eval 75571cf",
        vsi_bench.score_as_lmms_eval_2026_08,
        vsi_bench.figures,
    ),
    Scorer(
        "spatial-mllm-v1.1",
        "vsi-bench",
        "the last <answer> block or the whole text must be the answer; relative accuracy with < in float32",
        "diankun-wu/Spatial-MLLM 9fc4738",
        vsi_bench.score_as_spatial_mllm,
        vsi_bench.figures,
    ),
    Scorer(
        "spatial-mllm-v1.0",
        "vsi-bench",
        "as v1.1 for each question; v1.0 published only the micro averages",
        "Spatial-MLLM v1.0, evaluate/utils.py",
        vsi_bench.score_as_spatial_mllm,
        vsi_bench.figures,
    ),
    Scorer(
        "vlmevalkit",
        "vsi-bench",
        "the option or the last number found by rules all over the text; the rule-based path, without a judge model",
        "open-compass/VLMEvalKit e8e78f0",
        vlmevalkit.score_as_vlmevalkit,
        vsi_bench.figures,
    ),
    Scorer("lmms-eval", "revsi", _OFFICIAL_RULE, "EvolvingLMMs-Lab/lmms-eval 75571cf", revsi.score, revsi.figures),
    Scorer(
        "lmms-eval",
        "vsi-super",
        "count: relative accuracy of the first number; recall: the first of the letters A to D",
        "EvolvingLMMs-Lab/lmms-eval 75571cf",
        vsi_super.score,
        vsi_super.figures,
    ),
    Scorer(
        "spatial-mllm-v1.1",
        "scanqa",
        "words between spaces, neither tokenised nor lower-cased; EM on the raw text",
        "Spatial-MLLM v1.1, src/evaluation/scanqa",
        scanqa.exact_match,
        scanqa.figures,
        absent=scanqa.NO_METEOR,
    ),
    Scorer(
        "exact-match",
        "sqa3d",
        "EM-1: equal after lower-casing and trimming; refined EM: one contains the other without spaces",
        "no official code for the refined match was found",
        scanqa.sqa3d_exact_match,
        scanqa.sqa3d_figures,
    ),
)
BENCHMARKS = tuple(dict.fromkeys(scorer.benchmark for scorer in SCORERS))


def scorers_of(benchmark: str) -> tuple[Scorer, ...]:
    """The scorers of a benchmark, its default first.

    Raises:
        ConfigurationError: the benchmark is unknown.
    """
    found = tuple(scorer for scorer in SCORERS if scorer.benchmark == benchmark)
    if not found:
        raise ConfigurationError(f"There is no scorer for the benchmark {benchmark!r}; known: {', '.join(BENCHMARKS)}.")
    return found


def scorer_named(benchmark: str, name: str = "") -> Scorer:
    """The scorer of that name; "" for the benchmark's default.

    Raises:
        ConfigurationError: the benchmark or the name is unknown.
    """
    found = scorers_of(benchmark)
    for scorer in found:
        if name in ("", scorer.name):
            return scorer
    names = ", ".join(scorer.name for scorer in found)
    raise ConfigurationError(f"{benchmark} has no scorer {name!r}; known: {names}.")
