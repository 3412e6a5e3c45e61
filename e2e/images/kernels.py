"""The runtime's compiled libraries as a layer of their own: they change seldom."""

from __future__ import annotations

import sys

from tandem_runtime.native.build import LIBRARIES, PACKAGE, BuildError, find_library

from e2e.images.layout import SITE_PACKAGES
from e2e.images.oci import Layer


def kernels_layer() -> list[Layer]:
    """One layer; none, with a warning, where they cannot be compiled: such pods run on plain torch and plain Python."""
    files: dict[str, bytes] = {}
    for library in LIBRARIES:
        try:
            path = f"{SITE_PACKAGES}/{PACKAGE.name}/{library.ahead.relative_to(PACKAGE)}"
            files[path] = find_library(library).read_bytes()
        except BuildError as error:
            print(f"images: warning: {error}; the runtime image does without {library.name}", file=sys.stderr)
    return [Layer("", files)] if files else []
