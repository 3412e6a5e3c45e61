"""The sample model of the runtime image: `tandem-runtime make-model` writes it, again when its code changed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from e2e.images.cache import hold_lock, replace_file
from e2e.images.layers import Layer, walk
from e2e.images.layout import MODEL, ROOT
from e2e.images.tools import BuildError, run

# makes the model and then says which of our files it imported: exactly those decide whether the model is stale
RECORDER = """
import json, pathlib, sys
folder, sources, report = sys.argv[1:]
sys.path.insert(0, sources)
from tandem_runtime.models.make_model import make_model
make_model(pathlib.Path(folder))
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
with open(report, "w") as out:
    json.dump(sorted(file for file in files if file.startswith(sources)), out)
"""


def model_layer(cache: Path, root: Path = ROOT) -> Layer:
    """The layer with the sample model. Raises BuildError with the command's output when it fails."""
    sources, models = root / "runtime", cache / "models"
    models.mkdir(parents=True, exist_ok=True)
    with hold_lock(models / ".lock"):
        record = models / "sources.json"
        key = _source_key(json.loads(record.read_text()), sources) if record.is_file() else None
        if key is None or not (models / key).is_dir():
            key = _make_model(models, record, sources)
    os.utime(models / key)
    return Layer(MODEL, models / key, key=_content_key(models / key))


def _make_model(models: Path, record: Path, sources: Path) -> str:
    with tempfile.TemporaryDirectory(dir=models) as folder:
        model, report = Path(folder) / "model", Path(folder) / "report.json"
        run([sys.executable, "-c", RECORDER, str(model), str(sources), str(report)])
        files = [str(Path(file).relative_to(sources)) for file in json.loads(report.read_text())]
        key = _source_key(files, sources)
        if key is None or not files:
            raise BuildError(f"the sample model was not made by {sources}, or a file there vanished; build again")
        if not (models / key).is_dir():
            model.replace(models / key)
    with replace_file(record) as temporary:
        temporary.write_text(json.dumps(files))
    return key


def _source_key(files: list[str], sources: Path) -> str | None:
    """Hash of the sources that made the model; None when one of them is gone."""
    key = hashlib.sha256()
    for name in sorted(files):
        path = sources / name
        if not path.is_file():
            return None
        key.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return key.hexdigest()[:24]


def _content_key(folder: Path) -> str:
    """Hash of paths and contents: the same model keeps its layer when only its code was rewritten."""
    key = hashlib.sha256()
    for path in walk(folder):
        content = b"" if path.is_dir() else path.read_bytes()
        key.update(f"{path.relative_to(folder)}\0{hashlib.sha256(content).hexdigest()}\0".encode())
    return key.hexdigest()
