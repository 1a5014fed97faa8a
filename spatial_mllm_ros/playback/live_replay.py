"""The questions of a replay asked again in a live node, and how the node's answers differ from the replay's.

A question is asked once the node has placed the frames that the replay had placed when it asked. The node goes on
meanwhile, so it may have placed some more. The diff shows how much this matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatial_mllm_ros.answering.answer import Status
from spatial_mllm_ros.answering.setup import SessionConfig
from spatial_mllm_ros.msg import SpatialAnswer
from spatial_mllm_ros.playback.domains import use_own_domain
from spatial_mllm_ros.playback.live_run import (
    STARTUP_S,
    live_client,
    node_command,
    node_parameters,
    player_command,
    running,
)
from spatial_mllm_ros.provenance import versions
from spatial_mllm_ros.recordings.bag_topics import BagTopics
from spatial_mllm_ros.recordings.sources import open_source
from spatial_mllm_ros.replay.results import AskedQuestion, Report
from spatial_mllm_ros.ros.conversions import stamp_ns
from spatial_mllm_ros.ros.environment import use_shared_memory_profile
from spatial_mllm_ros.storage import write_json

DIFF_FILE = "ros_diff.json"


def ask_live(
    source: Path,
    report: Report,
    out_dir: Path,
    config: SessionConfig,
    *,
    topics: Sequence[str] = (),
    source_rate_hz: float | None = None,
) -> Path:
    """Plays ``source`` into a node, asks each question of ``report`` at its time, and writes ``ros_diff.json``.

    Args:
        source: the recording of ``report``.
        report: of the replay without ROS, with its trace.
        out_dir: also of the logs of node and player.
        config: of the replay; the node makes the same session.
        topics, source_rate_hz: of the recording, as for the replay.

    Returns:
        the file written.

    Raises:
        SpatialMllmError: the recording or one of the processes fails, or the node has no parameter for a value of
            ``config``.
    """
    use_own_domain()
    use_shared_memory_profile()
    out_dir.mkdir(parents=True, exist_ok=True)
    node_log, player_log = out_dir / "node.log", out_dir / "player.log"
    first_ns = report.trace.first_stamp_ns if report.trace else 0
    placed_ns = [seen.stamp_ns for seen in report.trace.seen] if report.trace else []
    by_time = sorted(
        enumerate(report.questions), key=lambda item: (item[1].asked.at_s is None, item[1].asked.at_s or 0.0)
    )
    options = [part for topic in topics for part in ("--topic", topic)]
    if source_rate_hz is not None:
        options += ["--source-rate-hz", str(source_rate_hz)]
    bag_topics = BagTopics.from_options(topics) if topics else None
    answers: dict[int, SpatialAnswer] = {}
    with (
        open_source(source, rate_hz=source_rate_hz, topics=bag_topics) as recording,
        running(node_command(node_parameters(recording, config)), node_log, "node") as node,
        live_client("spatial_replay", [node]) as client,
    ):
        client.until(client.ready, "the node's service /spatial_query", STARTUP_S)
        with running(player_command(source, *options), player_log, "player") as player:
            for number, item in by_time:
                if item.asked.at_s is None:
                    break
                newest_ns = max((stamp for stamp in placed_ns if stamp <= item.stamp_ns), default=0)
                client.until_time(first_ns + round(item.asked.at_s * 1e9), newest_ns, player)
                answers[number] = client.ask(item.asked.question)
            client.until_played(player, player_log)
        client.until_settled()
        for number, item in by_time:
            if number not in answers:
                answers[number] = client.ask(item.asked.question)
    path = out_dir / DIFF_FILE
    write_json(path, diff_json(report, [answers[number] for number in range(len(report.questions))]))
    return path


def diff_json(report: Report, live: Sequence[SpatialAnswer]) -> dict[str, Any]:
    """Question by question what is the same and what is not; ``live`` in the order of ``report.questions``."""
    rows = [_row(item, answer) for item, answer in zip(report.questions, live, strict=True)]
    return {
        "recording": report.source_name,
        "hashes": dict(report.hashes),
        "versions": versions(),
        "questions": rows,
        "same_answer": sum(row["same_answer"] for row in rows),
        "same_evidence": sum(row["same_evidence"] for row in rows),
        "of": len(rows),
    }


def _row(item: AskedQuestion, live: SpatialAnswer) -> dict[str, Any]:
    replayed = _facts(
        item.answer.status, item.answer.text, item.answer.value, item.answer.choice, item.answer.evidence_stamps_ns
    )
    choice = None if live.choice < 0 else live.choice
    stamps = [stamp_ns(stamp) for stamp in live.evidence]
    asked = _facts(Status(live.status), live.text, live.value if live.has_value else None, choice, stamps)
    shared = len(set(replayed["evidence"]) & set(stamps))
    return {
        "question": item.asked.question.text,
        "at_s": item.asked.at_s,
        "replay": replayed,
        "live": asked,
        "same_answer": all(replayed[name] == asked[name] for name in ("status", "text", "value", "choice")),
        "same_evidence": replayed["evidence"] == asked["evidence"],
        "shared_evidence": shared,
        "timings": {"live_total_s": live.timings.total.sec + live.timings.total.nanosec / 1e9},
    }


def _facts(status: Status, text: str, value: float | None, choice: int | None, stamps: Sequence[int]) -> dict[str, Any]:
    return {"status": status.name, "text": text, "value": value, "choice": choice, "evidence": list(stamps)}
