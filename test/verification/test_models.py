"""Ours against the published implementations: every case that is there must pass."""

import pytest

from spatial_mllm_ros.verification import manifests, preprocess, spatial_mllm

MODULES = {"spatial_mllm": (spatial_mllm, 90), "preprocess": (preprocess, 80), "manifests": (manifests, 5)}


@pytest.mark.parametrize("name", MODULES)
def test_all_reference_cases_pass(name, golden_dir):
    module, at_least = MODULES[name]
    done = list(module.checks(golden_dir))
    assert len(done) >= at_least
    assert [check for check in done if not check.passed] == []


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_without_cases_gives_no_check(name, tmp_path):
    assert list(MODULES[name][0].checks(tmp_path)) == []
