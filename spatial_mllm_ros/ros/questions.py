"""The service and the action `spatial_query`: two ways to ask, one way to the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from spatial_mllm_ros.action import SpatialQuery as SpatialQueryAction
from spatial_mllm_ros.answering.answer import Answer, Status
from spatial_mllm_ros.answering.question import Question
from spatial_mllm_ros.answering.session import Inquiry
from spatial_mllm_ros.errors import QuestionError
from spatial_mllm_ros.msg import SpatialAnswer
from spatial_mllm_ros.ros.active import ActiveNode
from spatial_mllm_ros.ros.conversions import nanoseconds
from spatial_mllm_ros.ros.spinning import ThreadResult
from spatial_mllm_ros.srv import SpatialQuery

if TYPE_CHECKING:
    from rclpy.action.server import ServerGoalHandle
    from rclpy.node import Node

_NS = 1_000_000_000


class QuestionServer:
    """Answers questions in every lifecycle state of the node; outside of `active` the answer is NOT_ACTIVE.

    Args:
        node: the rclpy node.
        active: what it works with at the moment; None while it is not active.
        publish: makes the message of an answer to a question, and publishes it.

    Attributes:
        open_questions: asked and not answered yet.
    """

    def __init__(
        self, node: Node, active: Callable[[], ActiveNode | None], publish: Callable[[Answer, str], SpatialAnswer]
    ) -> None:
        self._node = node
        self._active = active
        self._publish = publish
        self.open_questions = 0
        # An open question must not hold back the frames: service and action have callback groups of their own.
        self._service = node.create_service(
            SpatialQuery, "spatial_query", self._on_request, callback_group=ReentrantCallbackGroup()
        )
        self._action = ActionServer(
            node,
            SpatialQueryAction,
            "spatial_query",
            execute_callback=self._on_goal,
            goal_callback=lambda _request: GoalResponse.ACCEPT,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    async def _on_request(
        self, request: SpatialQuery.Request, response: SpatialQuery.Response
    ) -> SpatialQuery.Response:
        response.answer = await self._answered(request, cancelled=lambda: False)
        return response

    async def _on_goal(
        self, goal: ServerGoalHandle[SpatialQueryAction.Goal, SpatialQueryAction.Result, SpatialQueryAction.Feedback]
    ) -> SpatialQueryAction.Result:
        def on_text(text: str) -> None:
            goal.publish_feedback(SpatialQueryAction.Feedback(partial_text=text))

        answer = await self._answered(goal.request, cancelled=lambda: goal.is_cancel_requested, on_text=on_text)
        if answer.status == SpatialAnswer.STATUS_OK:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return SpatialQueryAction.Result(answer=answer)

    async def _answered(
        self,
        request: SpatialQuery.Request | SpatialQueryAction.Goal,
        *,
        cancelled: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
    ) -> SpatialAnswer:
        self.open_questions += 1
        try:
            answer = await self._answer(request, cancelled, on_text)
        finally:
            self.open_questions -= 1
        return self._publish(answer, request.question)

    async def _answer(
        self,
        request: SpatialQuery.Request | SpatialQueryAction.Goal,
        cancelled: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> Answer:
        arrived_ns = time.monotonic_ns()
        active = self._active()
        if active is None:
            return Answer(Status.NOT_ACTIVE, "The node is not active; activate it (lifecycle) and ask again.")
        try:
            question = Question(request.question, tuple(request.options))
        except QuestionError as error:
            return Answer(Status.INVALID_QUESTION, str(error))
        asked_ns = request.deadline.sec * _NS + request.deadline.nanosec
        deadline_ns = asked_ns if asked_ns > 0 else nanoseconds(active.parameters.query.default_deadline_s)
        worker = active.worker
        inquiry = Inquiry(
            question,
            arrived_ns,
            arrived_ns + deadline_ns,
            cancelled=lambda: worker.stopping or cancelled(),
            on_text=on_text,
        )
        result: ThreadResult[Answer] = ThreadResult(self._node.executor)
        worker.submit(inquiry, result.set)
        return await result.get()
