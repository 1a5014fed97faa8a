import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatial_mllm_ros.answering.answer import Answer, Status, Timings
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.benchmarks.evaluation import made_up_run
from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.recordings.question_files import TimedQuestion
from spatial_mllm_ros.replay.coverage_figures import SeenFrame, coverage_figures, coverage_over_time
from spatial_mllm_ros.replay.page import write_replay_page
from spatial_mllm_ros.replay.results import AskedQuestion, ReplayTrace, Report
from spatial_mllm_ros.replay.scores import score_of
from spatial_mllm_ros.report.browser import DESKTOP, PHONE, Screen, open_browser, write_screenshot
from spatial_mllm_ros.report.thumbnails import strip_jpeg, thumbnail_jpeg
from spatial_mllm_ros.scene.records import Selection
from spatial_mllm_ros.scene.voxels import pack_cells
from spatial_mllm_ros.scoring.benchmark_page import strip_key, write_benchmark_page
from spatial_mllm_ros.scoring.score_table import score_answers
from spatial_mllm_ros.scoring.scorers.catalogue import scorer_named

MODEL = {"name": "made-up", "architecture": "none", "licence": "none", "sha256": "a" * 64, "random_weights": True}
EVIL = "<script>alert(1)</script> how many chairs?"


def pose(x, z):
    matrix = np.eye(4)
    matrix[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # looks along y, z up
    matrix[:3, 3] = x, 0.3, z
    return matrix


def replayed(name="walk"):
    rng = np.random.default_rng(1)
    seen = [
        SeenFrame(
            (i + 1) * 10**9, np.unique(pack_cells(rng.integers([i, 0, 0], [i + 9, 7, 4], (60, 3)))), pose(0.1 * i, 1.0)
        )
        for i in range(12)
    ]
    stamps = tuple(frame.stamp_ns for frame in seen[::3])
    figures = coverage_figures(seen, stamps, level=0, fine_voxel_size=0.1, unit="m")
    rgb = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    asked = (
        (
            TimedQuestion(Question("How far is it?"), truth=2.0, tolerance=0.5),
            {"value": 2.1, "unit": "m", "text": "2.1"},
        ),
        (TimedQuestion(Question(EVIL), truth=4), {"value": 3.0, "text": "3 <b>chairs</b>"}),
        (TimedQuestion(Question("Which?", ("a bed", "a door")), truth="A"), {"choice": 1, "text": "a door"}),
        (TimedQuestion(Question("What?")), {"status": Status.DEADLINE, "message": "Too late."}),
    )
    questions = []
    for timed, values in asked:
        answer = Answer(
            **({"status": Status.OK, "evidence_stamps_ns": stamps, "timings": Timings(total_ns=3 * 10**8)} | values)
        )
        questions.append(AskedQuestion(timed, 9 * 10**9, answer, score_of(timed, answer)))
    return Report(
        source_kind="bag",
        source_name=name,
        frames=12,
        rejected={"pose": 2},
        left_out={},
        selection=Selection(epoch=0, stamps_ns=stamps, gains=(1,) * 4),
        coverage=figures,
        questions=tuple(questions),
        model=MODEL,
        coverage_over_time=coverage_over_time(seen, [(f.stamp_ns, stamps) for f in seen], level=0),
        hashes={"recording": "b" * 64, "model": MODEL["sha256"]},
        trace=ReplayTrace(seen, 0.1, seen[0].stamp_ns, {stamp: thumbnail_jpeg(rgb) for stamp in stamps}),
        read_ns=10**9,
    )


def write_benchmark(folder, questions=60):
    data, answers = made_up_run(questions, videos=5)
    answers.pop("7")
    scorer = scorer_named("vsi-bench")
    predictions = {number: answer.prediction for number, answer in answers.items()}
    table = score_answers(
        scorer, data.questions, predictions, split="full", model="made-up", frames="16 uniform frames"
    )
    (folder / "frames").mkdir()
    strip = strip_jpeg([np.full((48, 64, 3), 40 * i, np.uint8) for i in range(4)])
    (folder / "frames" / f"{strip_key(data.questions[0].video)}.jpg").write_bytes(strip)
    write_benchmark_page(
        folder / "report.html", data, answers, [table], scorer, model=MODEL, configuration={"frames": 16}
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_replay_page(folder / "replay.html", [replayed(), replayed("second walk")], frames=4)
    return folder / "replay.html", write_benchmark(folder)


def test_a_replay_page_shows_scores_evidence_coverage_map_and_hashes(pages):
    text = pages[0].read_text()
    for wanted in (
        "Scores by replay",
        "Coverage over time of walk",
        "Seen from above of second walk",
        "Time to answer",
    ):
        assert f"<h2>{wanted}</h2>" in text
    assert "random weights" in text
    assert "b" * 64 in text
    assert "2.0 ± 0.5" in text
    assert "2 frames, pose" in text
    assert text.count('thumb p-0-1000000000"') == 4
    assert text.count(".p-0-1000000000{") == 1  # a picture is in the file once, however often it is shown


def test_a_benchmark_page_says_by_which_scorer_on_what(pages):
    text = pages[1].read_text()
    assert (
        "split full, scorer thinking-in-space, made-up, 16 uniform frames, 59 of 60 questions, 1 not answered" in text
    )
    assert "vision-x-nyu/thinking-in-space" in text
    assert "no answer" in text
    assert "Wilson" in text
    assert "bootstrap over 5 scenes" in text


def test_choices_are_shown_by_the_text_of_the_option(pages):
    replay, benchmark = (page.read_text() for page in pages)
    assert '<span class="said">a door</span><span class="truth">truth a bed</span>' in replay
    assert re.search(r'<span class="said">([A-D])\. (chair|table|sofa|lamp)</span>', benchmark)
    assert re.search(r'<span class="truth">truth ([A-D])\. (chair|table|sofa|lamp)</span>', benchmark)
    assert re.search(r'<span class="said">\d\.\d</span>', benchmark)  # numbers stay as they are


def test_what_models_and_questions_say_cannot_become_markup(pages):
    text = pages[0].read_text()
    assert "<script>alert" not in text
    assert "<b>chairs" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("which", [0, 1])
def test_nothing_in_a_page_points_out_of_it(pages, which):
    text = pages[which].read_text()
    text = text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "default-src 'none'" in text


def test_the_same_report_gives_the_same_page(pages, tmp_path):
    write_replay_page(tmp_path / "again.html", [replayed(), replayed("second walk")], frames=4)
    assert (tmp_path / "again.html").read_bytes() == pages[0].read_bytes()


@pytest.fixture(scope="module")
def browser():
    try:
        with open_browser() as opened:
            yield opened
    except ConfigurationError as error:
        pytest.skip(str(error))


SCREENS = [
    Screen(screen.width_px, screen.height_px, screen.is_phone, dark)
    for screen in (DESKTOP, PHONE)
    for dark in (False, True)
]


@pytest.mark.parametrize("screen", SCREENS, ids=str)
@pytest.mark.parametrize("which", [0, 1])
def test_a_real_browser_has_nothing_to_complain_of_and_asks_for_nothing(browser, pages, screen, which):
    visit = browser.visit(pages[which], screen)
    assert visit.console == ()
    assert visit.requests == ()
    assert visit.overflow_px <= 0
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background))) / 3
    assert (brightness < 60) == screen.is_dark
    ink = browser.run("return getComputedStyle(document.querySelector('svg.chart text')).fill")
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) / 3 > 120) == screen.is_dark
    heights = "Array.from(document.querySelectorAll('svg.chart text'), e => e.getBoundingClientRect().height)"
    assert browser.run(f"return Math.min(...{heights})") >= 6.5  # the numbers in the cameras; all else is larger


def test_the_filter_hides_what_does_not_fit_and_evidence_is_visible(browser, pages):
    browser.visit(pages[0])
    browser.run("document.getElementById('verdict').value = 'wrong'")
    browser.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert browser.run("return document.getElementById('shown').textContent") == "2 of 8"
    assert browser.run("return document.querySelectorAll('#questions > details:not([hidden])').length") == 2
    browser.run("document.querySelector('#questions > details').hidden = false")
    browser.run("document.querySelector('#questions > details').open = true")
    image = browser.run("return getComputedStyle(document.querySelector('.thumb')).backgroundImage")
    assert image.startswith('url("data:image/jpeg;base64,')


def test_a_screenshot_shows_the_page_with_its_first_question_opened(browser, pages, tmp_path):
    browser.visit(pages[0])
    browser.screenshot(tmp_path / "closed.png", height_px=10_000)
    write_screenshot(pages[0], tmp_path / "opened.png", height_px=10_000)
    with Image.open(tmp_path / "closed.png") as closed, Image.open(tmp_path / "opened.png") as opened:
        assert closed.width == opened.width == DESKTOP.width_px
        assert opened.height > closed.height + 50
    with pytest.raises(SourceError, match="cannot be written"):
        write_screenshot(pages[0], tmp_path / "nowhere" / "opened.png")


def test_a_machine_without_a_browser_is_told_what_to_install(monkeypatch):
    pytest.importorskip("selenium", reason="selenium (extra 'browser') is not installed")
    monkeypatch.setenv("PATH", str(Path("/nonexistent")))
    with pytest.raises(ConfigurationError, match="apt-get install chromium"), open_browser():
        pass
