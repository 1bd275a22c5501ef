"""The examples in docstrings run, and show what they say."""

import doctest
import importlib

import pytest

MODULES = (
    "data",
    "data.io",
    "data.cache",
    "data.images",
    "data.folders",
    "data.samples",
    "data.scenes",
    "data.digits",
    "data.frames",
    "normalization",
    "checkpoint",
    "record",
    "deconv",
    "forward",
    "projection",
    "occlusion",
    "top",
    "fast",
    "feature_extraction",
    "attribution.base",
    "attribution.gradients",
    "attribution.cam",
    "attribution.registry",
    "attribution.custom",
    "benchmarking.adapters",
    "benchmarking.base",
    "benchmarking.cost",
    "benchmarking.metrics",
    "benchmarking.removal",
    "benchmarking.runner",
    "benchmarking.sanity",
    "benchmarking.shortcut",
    "analysis.embedding",
    "analysis.extra",
    "synthesis.adversarial",
    "synthesis.base",
    "synthesis.dream",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(f"zfnet.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
