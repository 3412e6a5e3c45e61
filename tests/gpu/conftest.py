from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tandem_runtime.engine.torch_executor import TorchExecutor
from tandem_runtime.models.make_model import make_model


@pytest.fixture(scope="session")
def sample_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample model's folder; read only."""
    directory = tmp_path_factory.mktemp("sample-model")
    make_model(directory)
    return directory


@pytest.fixture(scope="session")
def make_executor(sample_model: Path) -> Iterator[Callable[..., TorchExecutor]]:
    """Loads an executor of the sample model on the device given."""
    made: list[TorchExecutor] = []

    def make(device: str, deterministic: bool = True, dtype: str = "auto") -> TorchExecutor:
        executor = TorchExecutor(
            sample_model, device=device, deterministic=deterministic, dtype=dtype, kv_memory_bytes=1 << 28
        )
        executor.load()
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.close()
