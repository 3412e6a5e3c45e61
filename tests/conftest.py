"""Settings and fixtures for all tests: property tests must not fail because the machine is busy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tandem_runtime.models.make_model import make_model

settings.register_profile("tandem", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("tandem"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tandem"))


@pytest.fixture(scope="session")
def sample_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample model's folder; read only."""
    directory = tmp_path_factory.mktemp("sample-model")
    make_model(directory)
    return directory
