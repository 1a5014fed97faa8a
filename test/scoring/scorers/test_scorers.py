import math

import numpy as np
import pytest

from spatial_mllm_ros.errors import ConfigurationError
from spatial_mllm_ros.scoring.scorers.base import QuestionTypeError, ScoredQuestion, UnscorableError
from spatial_mllm_ros.scoring.scorers.captions import bleu, bleu_statistics, cider, rouge_l
from spatial_mllm_ros.scoring.scorers.catalogue import BENCHMARKS, SCORERS, scorer_named, scorers_of
from spatial_mllm_ros.scoring.scorers.intervals import bootstrap, wilson
from spatial_mllm_ros.scoring.scorers.numbers_in_text import first_number
from spatial_mllm_ros.scoring.scorers.scanqa import sqa3d_refined_match
from spatial_mllm_ros.scoring.scorers.vlmevalkit import number_in, option_in
from spatial_mllm_ros.verification import metrics


def vsi(name, question_type, prediction, truth):
    return scorer_named("vsi-bench", name).score(question_type, prediction, (truth,))


def test_every_reference_case_scores_as_the_scorer_it_names(golden_dir):
    rows = list(metrics.checks(golden_dir))
    assert len(rows) > 600
    assert [row for row in rows if not row.passed] == []


def test_the_same_answers_score_differently_by_rule():
    cases = {
        ("object_counting", "four", "4"): (0.0, 1.0, 0.0, 1.0),
        ("object_abs_distance", "5", "4"): (0.6, 0.6, 0.5, 0.6),
        ("object_counting", "4 chairs", "4"): (1.0, 1.0, 0.0, 1.0),
        ("route_planning", "(B)", "B"): (0.0, 0.0, 0.0, 1.0),
        ("route_planning", "<answer>B</answer>", "B"): (0.0, 0.0, 1.0, 1.0),
        ("object_rel_distance", "B. sofa", "B"): (1.0, 1.0, 0.0, 1.0),
    }
    names = ("thinking-in-space", "lmms-eval-2026-08", "spatial-mllm-v1.1", "vlmevalkit")
    for case, wanted in cases.items():
        assert tuple(vsi(name, *case) for name in names) == pytest.approx(wanted), case


def test_a_truth_of_zero_is_an_error_that_names_the_published_one():
    with pytest.raises(UnscorableError, match="divides by it") as raised:
        vsi("thinking-in-space", "room_size_estimation", "3", "0")
    assert raised.value.reference_error == "ZeroDivisionError"
    assert vsi("spatial-mllm-v1.1", "room_size_estimation", "0", "0") == 1.0
    assert vsi("vlmevalkit", "room_size_estimation", "0.4", "0") == pytest.approx(0.3)


@pytest.mark.parametrize(
    "scorer", [s for s in SCORERS if s.benchmark not in ("scanqa", "sqa3d")], ids=lambda s: f"{s.benchmark}-{s.name}"
)
def test_an_unknown_question_type_is_refused_by_name(scorer):
    with pytest.raises(QuestionTypeError, match="'colour_of_things'"):
        scorer.score("colour_of_things", "red", ("red",))


def test_scorers_are_found_by_name_and_the_first_is_the_default():
    assert scorer_named("vsi-bench").name == "thinking-in-space"
    assert {s.name for s in scorers_of("vsi-bench")} >= {"spatial-mllm-v1.0", "spatial-mllm-v1.1", "vlmevalkit"}
    assert set(BENCHMARKS) == {"vsi-bench", "revsi", "vsi-super", "scanqa", "sqa3d"}
    with pytest.raises(ConfigurationError, match=r"'mine'.*thinking-in-space"):
        scorer_named("vsi-bench", "mine")
    with pytest.raises(ConfigurationError, match="'other'"):
        scorers_of("other")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("about twenty-one chairs", 21),
        ("Thirty two", 32),
        ("one apple, room 2", 1),
        ("2 or three", 2),
        ("1,5", 1),
        ("-4.5 m", -4.5),
        (".5", 0.5),
        ("someone", None),
        ("nan", None),
    ],
)
def test_the_first_number_of_a_text(text, number):
    assert first_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<answer> (ignored) </answer> Final answer: C", "C"),
        ("<think>A or B?</think>\nIt is near the wall.\n**D**", "D"),
        ("Option A: chair\nOption B: table\nThe answer is B.", "B"),
        ("A or B", None),
        ("B) sofa, since A is far", "B"),
        ("d", "D"),
        ("so I would choose C because of the door", "C"),
        ("", None),
    ],
)
def test_an_option_is_found_where_a_sign_is_clear(text, letter):
    assert option_in(text) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("between 2 and 3", 3),
        ("<answer> 7 chairs</answer> 9", 7),
        ("<think>5</think> no idea", 5),
        ("[4, 5]", 4),
        ("[broken", None),
        ("[broken]", None),
        ("1.5e1", 15),
        ("twenty", 20),
    ],
)
def test_the_number_of_a_text_by_the_vlmevalkit_rule(text, number):
    assert number_in(text) == number


def scored(*rows):
    return [ScoredQuestion(kind, scene, "", (), score) for kind, scene, score in rows]


def test_macro_takes_direction_as_one_type_and_micro_counts_questions():
    rows = scored(
        ("object_rel_direction_easy", "a", 1.0),
        ("object_rel_direction_hard", "a", 0.0),
        ("object_rel_direction_hard", "b", 0.0),
        ("object_counting", "b", 0.9),
        ("object_counting", "c", None),
    )
    figures = {f.name: f for f in scorer_named("vsi-bench").figures(rows)}
    assert figures["object_rel_direction"].value == pytest.approx(0.5)
    assert figures["macro, all"].value == pytest.approx((0.5 + 0.9) / 2)
    assert figures["micro, all"].value == pytest.approx(1.9 / 4)
    assert figures["micro, all"].questions == 4
    assert "route_planning" not in figures
    assert figures["object_rel_direction_hard"].interval == "Wilson"
    assert figures["macro, all"].interval == "bootstrap over 2 scenes"


def test_intervals_hold_the_value_and_shrink_with_more_scenes():
    rng = np.random.default_rng(3)

    def width(scenes):
        rows = scored(*(("object_abs_distance", str(i // 3), float(rng.integers(11)) / 10) for i in range(3 * scenes)))
        figure = next(f for f in scorer_named("vsi-bench").figures(rows) if f.name == "macro, all")
        assert figure.low < figure.value < figure.high
        return figure.high - figure.low

    assert width(160) < width(10)


@pytest.mark.parametrize("scores", [(0.1,), (1.0,), (0.6, 0.6, 0.6), (0.1,) * 7])
def test_scores_without_spread_are_not_called_certain(scores):
    rows = scored(*(("object_abs_distance", str(i), score) for i, score in enumerate(scores)))
    (figure,) = (f for f in scorer_named("vsi-bench").figures(rows) if f.name == "object_abs_distance")
    assert (figure.low, figure.high) == wilson(sum(scores), len(scores))
    assert figure.high - figure.low > 0.2


def test_questions_of_one_scene_are_drawn_together():
    statistics = np.array([[s, 1.0] for s in [1, 1, 1, 1, 0, 0, 0, 0]])

    def mean(sums):
        return sums[:, :1] / sums[:, 1:]

    low, high, method = bootstrap(["a"] * 4 + ["b"] * 4, statistics, mean)
    assert (low[0], high[0], method) == (0.0, 1.0, "bootstrap over 2 scenes")
    low, high, method = bootstrap(["a"] * 8, statistics, mean)
    assert 0.0 < low[0] < 0.5 < high[0] < 1.0
    assert method == "bootstrap over 8 questions"


def test_wilson_is_the_published_interval():
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5)[1] == 1.0


def test_bleu_gives_partial_credit_and_punishes_what_is_too_short():
    full = bleu(bleu_statistics("the red chair near the door", ["the red chair near the door"])[None])[0]
    short = bleu(bleu_statistics("the red chair", ["the red chair near the door"])[None])[0]
    assert full[3] == pytest.approx(1.0, abs=1e-6)
    assert short[0] == pytest.approx(math.exp(1 - 6 / 3), rel=1e-6)


def test_rouge_counts_words_in_order_and_cider_words_that_tell_scenes_apart():
    assert rouge_l("b a", ["a b"]) == pytest.approx(0.5)
    assert rouge_l("x", ["a b"]) == 0.0
    references = [["the brown door"], ["the white sink"], ["the table"]]
    common, telling = cider(["the", "sink", "x"], [references[1], references[1], references[2]])[:2]
    assert telling > common == 0.0


def test_scanqa_says_that_meteor_is_absent():
    scorer = scorer_named("scanqa")
    assert "METEOR" in scorer.absent
    rows = [ScoredQuestion("", "s", "a chair.", ("a chair",), scorer.score("", "a chair.", ("a chair",)))]
    figures = {f.name: f.value for f in scorer.figures(rows)}
    assert figures["EM"] == 0.0
    assert figures["BLEU-1"] > 0.99


def test_the_refined_match_forgives_additions_but_not_silence():
    exact = scorer_named("sqa3d").score
    assert exact("", " Left. ", ("left",)) == 1.0
    assert exact("", "to the left", ("left",)) == 0.0
    assert sqa3d_refined_match("to the left", ("left",)) == 1.0
    assert sqa3d_refined_match("", ("left",)) == 0.0
    assert sqa3d_refined_match("right", ("left",)) == 0.0
