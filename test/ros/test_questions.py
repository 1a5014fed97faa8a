"""What becomes of a question outside of the usual course; the usual one is in test_node.py."""

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("spatial_mllm_ros.msg", reason="the interfaces are not built; run ./dev install")

from spatial_mllm_ros.answering.answer import Status  # noqa: E402
from spatial_mllm_ros.ros.conversions import answer_message  # noqa: E402
from spatial_mllm_ros.ros.questions import QuestionServer  # noqa: E402
from spatial_mllm_ros.srv import SpatialQuery  # noqa: E402


@pytest.fixture
def node():
    rclpy.init(args=[])
    made = rclpy.create_node("questions_under_test")
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


def run(coroutine):
    """A coroutine that waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def test_a_node_that_is_not_active_says_so_and_the_answer_is_published(node):
    published = []

    def publish(answer, question):
        published.append((answer.status, question))
        return answer_message(answer, question, "odom")

    server = QuestionServer(node, lambda: None, publish)
    response = run(server._on_request(SpatialQuery.Request(question="How many?"), SpatialQuery.Response()))
    assert response.answer.status == Status.NOT_ACTIVE
    assert published == [(Status.NOT_ACTIVE, "How many?")]
    assert server.open_questions == 0


def test_a_question_that_fails_is_not_counted_as_open_for_ever(node):
    counted = []

    def broken():
        counted.append(server.open_questions)
        raise ZeroDivisionError

    server = QuestionServer(node, broken, lambda answer, question: None)
    with pytest.raises(ZeroDivisionError):
        run(server._on_request(SpatialQuery.Request(question="How many?"), SpatialQuery.Response()))
    assert (counted, server.open_questions) == ([1], 0)
