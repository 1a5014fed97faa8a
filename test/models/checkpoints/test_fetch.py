"""Against a small hub of our own: the few routes that huggingface_hub uses, on the loopback interface."""

import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spatial_mllm_ros.errors import CheckpointError
from spatial_mllm_ros.models.checkpoints import fetch as fetch_module
from spatial_mllm_ros.models.checkpoints.fetch import PUBLISHED, fetch

COMMIT = "c0ffee" * 6 + "beef"
REPOSITORY = "facebook/VGGT-1B"


class Hub:
    """One repository; ``cut`` cuts the first answer for a file short, ``forged`` answers with other bytes."""

    def __init__(self, files):
        self.files, self.card = files, {"license": "other", "license_name": "our-own", "license_link": "LICENSE"}
        self.sent, self.began, self.cut, self.forged, self.gated = Counter(), [], {}, {}, False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.answer(self, with_body=False)

            def do_GET(self):
                hub.answer(self, with_body=True)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.thread.join(5)
        self.server.server_close()

    def answer(self, request, *, with_body):
        path = request.path.partition("?")[0]
        if self.gated:
            self.send(request, 403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            body = json.dumps(self.tree()).encode()
            self.send(request, 200, body, {"Content-Type": "application/json"}, with_body)
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            body = json.dumps(self.description()).encode()
            self.send(request, 200, body, {"Content-Type": "application/json"}, with_body)
        elif path.startswith(start := f"/{REPOSITORY}/resolve/{COMMIT}/") and path.removeprefix(start) in self.files:
            self.send_file(request, path.removeprefix(start), with_body)
        else:
            self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)

    def description(self):
        siblings = []
        for name, data in self.files.items():
            entry = {"rfilename": name, "size": len(data), "blobId": git_hash(data)}
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "cardData": self.card}

    def tree(self):
        return [
            {
                "type": "file",
                "path": entry["rfilename"],
                "size": entry["size"],
                "oid": entry["blobId"],
                **({"lfs": {"oid": entry["lfs"]["sha256"], **entry["lfs"]}} if "lfs" in entry else {}),
            }
            for entry in self.description()["siblings"]
        ]

    def send_file(self, request, name, with_body):
        data = self.forged.get(name, self.files[name])
        first = 0
        if (asked := request.headers.get("Range")) and with_body:
            first = int(asked.removeprefix("bytes=").partition("-")[0])
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_hash(self.files[name])}"', "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        body = data[first:]
        if with_body:
            self.sent[name] += 1
            self.began.append(first)
            short = self.cut.pop(name, None)
            if short is not None:
                self.send(request, 206 if first else 200, body, headers, with_body, only=short)
                request.close_connection = True
                return
        self.send(request, 206 if first else 200, body, headers, with_body)

    @staticmethod
    def send(request, status, body, headers, with_body, only=None):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body[:only])
            request.wfile.flush()


def git_hash(data):
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@pytest.fixture
def hub(monkeypatch):
    files = {
        "model.safetensors": bytes(range(256)) * 400,
        "model.pt": b"a pickle",
        "config.json": b'{"a": 1}\n',
        "README.md": b"---\nlicense: other\n---\n",
        "LICENSE.txt": b"Our own licence\n",
        "media/teaser.png": b"picture",
    }
    made = Hub(files)
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    yield made
    made.close()


def test_only_what_a_checkpoint_needs_is_fetched_and_written_down(hub, tmp_path):
    fetched = fetch("vggt-1b", tmp_path / "out", accept_licence=True)
    wanted = {"model.safetensors", "config.json", "README.md", "LICENSE.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*wanted, "fetched.json"}
    for name in wanted:
        assert (tmp_path / "out" / name).read_bytes() == hub.files[name]
    assert fetched.licence == "our-own (LICENSE)"
    record = json.loads((tmp_path / "out" / "fetched.json").read_text())
    assert (record["repository"], record["revision"]) == (REPOSITORY, COMMIT)
    assert record["sha256"]["model.safetensors"] == hashlib.sha256(hub.files["model.safetensors"]).hexdigest()


def test_without_the_licence_accepted_it_is_named_and_nothing_is_fetched(hub, tmp_path):
    with pytest.raises(CheckpointError, match=r"licence our-own \(LICENSE\) \(non-commercial\).*--accept-licence"):
        fetch("vggt-1b", tmp_path / "out", accept_licence=False)
    assert not (tmp_path / "out").exists()
    assert not hub.sent


def test_a_download_cut_short_goes_on_where_it_was(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # 10 MB are kept otherwise, or nothing
    hub.cut["model.safetensors"] = 30_000
    fetch("vggt-1b", tmp_path / "out", accept_licence=True)
    assert hub.sent["model.safetensors"] == 2  # cut once, then the rest
    assert max(hub.began) == 30_000
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_what_is_there_already_is_kept_and_what_was_damaged_fetched_again(hub, tmp_path):
    fetch("vggt-1b", tmp_path / "out", accept_licence=True)
    hub.sent.clear()
    damaged = bytearray(hub.files["model.safetensors"])
    damaged[5] ^= 1
    (tmp_path / "out" / "model.safetensors").write_bytes(damaged)
    fetch("vggt-1b", tmp_path / "out", accept_licence=True)
    assert dict(hub.sent) == {"model.safetensors": 1}
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_with_another_hash_is_refused_and_removed(hub, tmp_path, name):
    hub.forged[name] = hub.files[name][::-1]
    with pytest.raises(CheckpointError, match=f"{name} arrived with another hash"):
        fetch("vggt-1b", tmp_path / "out", accept_licence=True)
    assert not (tmp_path / "out" / name).exists()
    assert not (tmp_path / "out" / "fetched.json").exists()


def test_a_full_disk_is_noticed_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 400_000_000})
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"0\.4 GB free"):
        fetch("vggt-1b", tmp_path / "out", accept_licence=True)
    assert not hub.sent


def test_pickles_alone_are_refused(hub, tmp_path):
    del hub.files["model.safetensors"]
    with pytest.raises(CheckpointError, match="no safetensors file"):
        fetch("vggt-1b", tmp_path / "out", accept_licence=True)


def test_no_access_no_such_repository_and_no_server_are_told_apart(hub, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="has no repository nobody/nothing"):
        fetch("nobody/nothing", tmp_path / "out", accept_licence=True)
    hub.gated = True
    with pytest.raises(CheckpointError, match="access on request"):
        fetch("vggt-1b", tmp_path / "out", accept_licence=True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(CheckpointError, match=r"cannot be (reached|asked)"):
        fetch("vggt-1b", tmp_path / "out", accept_licence=True)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(CheckpointError, match=r"known are spatial-mllm-v1\.1-135k"):
        fetch("spatial-mllm", tmp_path, accept_licence=True)
    with pytest.raises(CheckpointError, match=re.escape(", ".join(PUBLISHED))):
        fetch("spa3-vlm", tmp_path, accept_licence=True)  # a model of which no layout is known here
