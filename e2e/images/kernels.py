"""The runtime's compiled kernels as a layer of their own: they change seldom."""

from __future__ import annotations

import sys

from tandem_runtime.ops import build

from e2e.images.layout import SITE_PACKAGES
from e2e.images.oci import Layer


def kernels_layer() -> list[Layer]:
    """One layer; none, with a warning, where they cannot be compiled: such pods compute in plain torch."""
    try:
        library = build.find_library()
    except build.BuildError as error:
        print(f"images: warning: {error}; the runtime image gets no compiled kernels", file=sys.stderr)
        return []
    return [Layer("", {f"{SITE_PACKAGES}/tandem_runtime/ops/{build.AHEAD.name}/{library.name}": library.read_bytes()})]
