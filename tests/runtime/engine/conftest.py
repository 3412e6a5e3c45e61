from __future__ import annotations

from pathlib import Path

import pytest
from tandem_runtime.models.make_model import make_model


@pytest.fixture(scope="session")
def sample_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample model's folder; read only."""
    directory = tmp_path_factory.mktemp("sample-model")
    make_model(directory)
    return directory
