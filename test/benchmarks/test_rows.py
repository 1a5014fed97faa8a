import json

import numpy as np

from spatial_mllm_ros.benchmarks.rows import Row, report

ROWS = [
    Row("selection.offline_speedup", np.float64(52.5), "", ">= 50", "plain over ours"),
    Row("stream.toy.ring_bytes", np.int64(7), "bytes", series=[(1, 2.5), (2, 7)]),
]


def test_rows_are_printed_with_their_aims_and_written_with_machine_and_versions(tmp_path, capsys):
    report(ROWS, tmp_path / "rows.json")
    assert capsys.readouterr().out.splitlines() == [
        "selection.offline_speedup          52.5    aim >= 50",
        "stream.toy.ring_bytes                 7 bytes",
    ]
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["rows"] == [
        {
            "name": "selection.offline_speedup",
            "value": 52.5,
            "unit": "",
            "aim": ">= 50",
            "detail": "plain over ours",
        },
        {
            "name": "stream.toy.ring_bytes",
            "value": 7.0,
            "unit": "bytes",
            "aim": "",
            "detail": "",
            "series": [[1, 2.5], [2, 7]],
        },
    ]
    assert {"cpu", "cores"} <= set(written["machine"])
    assert "python" in written["versions"]


def test_rows_are_only_printed_where_no_file_is_asked_for(tmp_path, capsys):
    report(ROWS[:1], None)
    assert capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
