from pathlib import Path

import pytest

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.engines import commands
from spatial_mllm_ros.engines.cache import ENGINE_NAME, EngineCache, EngineKey
from spatial_mllm_ros.engines.commands import ExportPlan
from spatial_mllm_ros.engines.profile import ProfileKind
from spatial_mllm_ros.engines.tensorrt_engines import TensorRtHere
from spatial_mllm_ros.engines.tensorrt_probe import GpuInfo, TensorRtInfo
from spatial_mllm_ros.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
HERE = TensorRtHere(
    TensorRtInfo("10.14.1.48", can_build=True), GpuInfo("NVIDIA H200", "9.0", "570.1", "Linux-x86_64"), "tensorrt"
)


@pytest.fixture
def home(geometry_export, fusion_export, exports_folder, monkeypatch):
    monkeypatch.setattr(commands, "exports_home", lambda: exports_folder)
    return exports_folder


@pytest.mark.parametrize("path", sorted((ROOT / "engines").glob("*.yaml")), ids=lambda path: path.name)
def test_every_plan_in_the_repository_is_readable_and_has_both_profiles(path):
    plan = ExportPlan.read(path)
    assert {profile.kind for profile in plan.profiles} == set(ProfileKind)
    assert plan.opset in (20, 23)


@pytest.mark.parametrize("content", ["", "opset: 23\n", "opset: 23\nprofiles: [{kind: geometry, size: 3}]\n", "a: [\n"])
def test_a_plan_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "plan.yaml").write_text(content)
    with pytest.raises(ConfigurationError):
        ExportPlan.read(tmp_path / "plan.yaml")


def test_exports_go_to_the_folder_of_their_weights_and_profile(
    tmp_path, monkeypatch, capsys, geometry_export, random_checkpoint
):
    model = ("--checkpoint", str(random_checkpoint))
    made = []

    def export_profile(vggt, identity, profile, folder, options):
        made.append((identity.name, profile.name, folder.name, options.opset))
        return geometry_export

    monkeypatch.setattr("spatial_mllm_ros.engines.export.export_profile", export_profile)
    assert main(["engine", "export", str(ROOT / "engines" / "tiny-demo.yaml"), "--out", str(tmp_path), *model]) == 0
    names = ["geometry-112x84-f2-8-fp32", "fusion-112x84-f2-16-fp32"]
    assert [entry[1] for entry in made] == names
    assert all(entry[2].endswith(f"-{name}-opset23") for entry, name in zip(made, names, strict=True))
    assert {entry[0] for entry in made} == {"random-tiny"}
    assert "onnxruntime-cpu         3 depth " in capsys.readouterr().out


def filled(folder, exported):
    cache = EngineCache(folder)
    cache.get_or_build(HERE.key(exported), lambda path, tell: path.write_bytes(b"engine"))
    other = EngineKey(**{**vars(HERE.key(exported)), "gpu": "NVIDIA Orin", "sm": "8.7"})
    cache.get_or_build(other, lambda path, tell: path.write_bytes(b"engine"))
    return cache, other


def test_list_shows_exports_and_engines_and_verify_finds_a_flipped_byte(home, geometry_export, tmp_path, capsys):
    cache, other = filled(tmp_path / "engines", geometry_export)
    assert main(["engine", "verify", "--cache", str(cache.folder)]) == 0
    told = capsys.readouterr().out
    assert "ok: fusion-42x56-f2-8-fp16, opset 20, small, random weights" in told
    assert "ok: tensorrt 10.14.1.48, NVIDIA Orin (SM 8.7)" in told
    (cache.folder / other.folder_name / ENGINE_NAME).write_bytes(b"enginf")
    assert main(["engine", "list", "--cache", str(cache.folder)]) == 0
    assert main(["engine", "verify", "--cache", str(cache.folder)]) == 1
    assert "tampered: The SHA-256" in capsys.readouterr().out


def test_prune_keeps_what_this_gpu_can_use(home, geometry_export, tmp_path, capsys, monkeypatch):
    cache, other = filled(tmp_path / "engines", geometry_export)
    monkeypatch.setattr(TensorRtHere, "find", staticmethod(lambda: HERE))
    assert main(["engine", "prune", "--dry-run", "--cache", str(cache.folder)]) == 0
    assert f"would remove {cache.folder / other.folder_name}" in capsys.readouterr().out
    assert len(cache.engines()) == 2
    assert main(["engine", "prune", "--cache", str(cache.folder)]) == 0
    assert [engine.key["gpu"] for engine in cache.engines()] == ["NVIDIA H200"]
    assert main(["engine", "prune", "--all", "--cache", str(cache.folder)]) == 0
    assert cache.engines() == []


def test_build_without_a_gpu_says_so(home, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["engine", "build"]) == 1
    assert "no CUDA device" in capsys.readouterr().err


def test_build_names_what_it_does_not_build(home, tmp_path, capsys, monkeypatch, fake_tensorrt, geometry_export):
    older = TensorRtHere(TensorRtInfo("10.3.0.26", can_build=True), HERE.gpu, "tensorrt")
    monkeypatch.setattr(TensorRtHere, "find", staticmethod(lambda: older))
    assert main(["engine", "build", str(geometry_export.folder), "--cache", str(tmp_path / "e")]) == 1
    assert "geometry: not built; another export of this profile is used, or opset 20" in capsys.readouterr().out


def test_the_budget_says_that_it_is_computed(capsys):
    assert main(["engine", "budget"]) == 0
    told = capsys.readouterr().out
    assert "| geometry 518x392 bf16 | 8 | 25.4 |" in told
    assert "Computed from the sizes, not measured." in told
