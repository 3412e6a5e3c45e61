"""Run by the Python inside an image: fails when something that a pod relies on is missing there."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import ssl
import sys
from pathlib import Path


def main() -> None:
    """Raise with what is missing. The argument is the folder of the sample model, absolute when there must be one."""
    model = Path(sys.argv[1])
    assert os.getuid() == 65532, f"runs as user {os.getuid()}"
    assert sys.prefix == "/opt/tandem", f"the prefix is {sys.prefix}"
    assert sys.getfilesystemencoding() == "utf-8", "file names are not UTF-8"
    assert os.statvfs("/").f_flag & os.ST_RDONLY, "the root can be written"
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 10, "no CA certificates"
    assert pwd.getpwuid(os.getuid()).pw_name == "nonroot", "the user has no name"

    stdlib = Path(importlib.util.__file__).parents[1]
    modules = sorted(path.name.partition(".")[0] for path in stdlib.glob("lib-dynload/*.so"))
    for module in modules:
        importlib.import_module(module)
    packages = ["aiohttp", "jinja2", "kopf", "kubernetes", "msgspec", "pydantic", "tokenizers", "uvloop", "yaml"]
    for module in ["tandem_operator", "tandem_runtime", *packages]:
        found = importlib.import_module(module)
        cached = found.__spec__.cached if found.__spec__ else None
        assert Path(cached or "missing").is_file(), f"{module} has no bytecode, every start would compile it again"
    for command in importlib.metadata.distribution("tandem-serving").entry_points:
        command.load()

    for folder in (stdlib, Path(importlib.import_module("tandem_runtime").__path__[0]).parent):
        for compiled in folder.rglob("*.pyc"):
            with compiled.open("rb") as file:
                flags = file.read(8)[4:]
            # 1: valid whatever the file times; every start would compile the others again
            assert flags == b"\x01\0\0\0", f"{compiled} depends on file times"

    has_torch = importlib.util.find_spec("torch") is not None
    assert has_torch == model.is_absolute(), "torch belongs into the runtime image only"
    if model.is_absolute():
        assert json.loads((model / "config.json").read_text()), "the sample model has no config"
        assert (model / "tokenizer.json").is_file(), "the sample model has no tokenizer"
    print(f"Python {sys.version.split()[0]}, {len(modules)} built-in modules, our packages and commands load")


if __name__ == "__main__":
    main()
