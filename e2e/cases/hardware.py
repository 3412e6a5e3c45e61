"""Hardware classes of the chart's values, for cases: leave one out and bring it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e2e.stack import ROOT, SYSTEM_NAMESPACE, Stack, wait_until


def upgrade(stack: Stack, *values: str) -> None:
    """`helm upgrade` with these values beside those of the installation."""
    settings = [part for value in values for part in ("--set", value)]
    stack.cluster.helm(
        "upgrade", "tandem", str(ROOT / "charts/tandem"), "--namespace", SYSTEM_NAMESPACE, "--reuse-values",
        "--wait", "--timeout", "180s", *settings,
    )  # fmt: skip


def classes(stack: Stack) -> dict[str, dict[str, Any]]:
    """All HardwareClass objects by name."""
    return {item["metadata"]["name"]: item for item in stack.get("hwc")["items"]}


@contextmanager
def left_out(stack: Stack, name: str) -> Iterator[None]:
    """Inside, the values leave a class out and it is gone; afterwards it is back."""
    try:
        upgrade(stack, f"hardwareClasses.{name}.enabled=false")
        wait_until(f"{name} is gone", 60, lambda: name not in classes(stack))
        yield
    finally:
        upgrade(stack, f"hardwareClasses.{name}.enabled=true")
    wait_until(f"{name} is back", 60, lambda: name in classes(stack))
