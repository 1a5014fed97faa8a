from importlib import metadata

import torch

from spatial_mllm_ros import provenance
from spatial_mllm_ros.provenance import code_version, machine, versions


def test_versions_name_every_package_asked_for_whether_it_is_installed_or_not():
    found = versions("pytest", "no-such-package")
    assert found["torch"] == torch.__version__
    assert found["pytest"] == metadata.version("pytest")
    assert found["no-such-package"] == "not installed as a package"
    assert "pytest" not in versions()


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch):
    assert code_version() == metadata.version("spatial-mllm-ros")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(provenance.metadata, "version", absent)
    assert code_version() == "unknown"


def test_the_machine_is_described_without_its_name():
    assert set(machine()) == {"cpu", "cores", "architecture", "gpu"}
