"""What shared libraries need and offer, read with readelf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from e2e.images.tools import run


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol: version "" when it has none, kind as readelf prints it (FUNC, OBJECT, ...)."""

    name: str
    version: str
    kind: str
    size_bytes: int
    defined: bool


@dataclass(frozen=True)
class Library:
    """A shared library: sonames it needs, symbols it offers and symbols it takes from others."""

    needed: frozenset[str]
    offers: dict[str, Symbol]
    takes: dict[str, Symbol]


def read_library(path: Path) -> Library:
    """Read one shared library."""
    dynamic = run(["readelf", "-W", "--dynamic", str(path)])
    symbols = parse_symbols(run(["readelf", "-W", "--dyn-syms", str(path)]).splitlines())
    return Library(
        parse_needed(dynamic.splitlines()),
        {symbol.name: symbol for symbol in symbols if symbol.defined},
        {symbol.name: symbol for symbol in symbols if not symbol.defined},
    )


def parse_needed(lines: Iterable[str]) -> frozenset[str]:
    """The sonames of `readelf --dynamic`."""
    return frozenset(line.partition("[")[2].partition("]")[0] for line in lines if "(NEEDED)" in line)


def parse_symbols(lines: Iterable[str]) -> list[Symbol]:
    """The global symbols of `readelf -W --dyn-syms`."""
    symbols = []
    for line in lines:
        fields = line.split()
        if len(fields) < 8 or not fields[0].rstrip(":").isdigit() or fields[4] == "LOCAL":
            continue
        name, _, version = fields[7].replace("@@", "@").partition("@")
        symbols.append(Symbol(name, version, fields[3], int(fields[2], 0), fields[6] != "UND"))
    return symbols


def is_elf(path: Path) -> bool:
    """Whether a file is an ELF object."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
