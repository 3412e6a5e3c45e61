"""Small stand-ins for shared libraries that a CPU never calls but the loader insists on.

A stand-in has the soname and exactly the symbols that the remaining libraries take from the real one. A call that
does reach it says its name and aborts, instead of going on with nonsense.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from e2e.images.elf import Symbol
from e2e.images.tools import run

# called while torch is imported; each returns or fills something that is stored and never used without a GPU
RETURNS_STORAGE = frozenset({"_ZN4c10d15get_gil_checkerEv"})
FILLS_OBJECT = frozenset({"_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb", "_ZN4c10d16ProcessGroupNCCL7OptionsC2Eb"})

PRELUDE = """
extern long write(int file, const void *data, unsigned long count);
extern void abort(void) __attribute__((noreturn));
extern char class_type_info[] __asm__("_ZTVN10__cxxabiv117__class_type_infoE");
static void say(const char *text) { unsigned long n = 0; while (text[n]) n++; (void)!write(2, text, n); }
static __attribute__((noreturn, noinline)) void called(const char *symbol) {
  say("CPU-only image: " LIBRARY " has no "); say(symbol); say("; use an image with the full torch for GPUs\\n");
  abort();
}
static void *storage[64];
static void ignore(void) {}
static void *ignore_all[64] = {[0 ... 63] = (void *)ignore};
"""


def write_source(soname: str, symbols: Iterable[Symbol]) -> str:
    """C source of the stand-in for `soname`."""
    parts = [f'#define LIBRARY "{soname}"', PRELUDE]
    for number, symbol in enumerate(sorted(symbols, key=lambda symbol: symbol.name)):
        parts.append(_define(f"s{number}", symbol))
    return "\n".join(parts) + "\n"


def _define(local: str, symbol: Symbol) -> str:
    label = f'__asm__("{symbol.name}")'
    if symbol.name.startswith("_ZTI"):
        # pybind11 hashes the name of a type: the object must be a real one, zeros crash the import
        name = symbol.name.removeprefix("_ZTI")
        return (
            f"extern const void *const {local}[3] {label};\n"
            f'const void *const {local}[3] = {{class_type_info + 2 * sizeof(void *), "{name}", 0}};'
        )
    if symbol.kind not in ("FUNC", "IFUNC", "NOTYPE"):
        size_bytes = max(symbol.size_bytes, 8)
        return f"extern char {local}[{size_bytes}] {label};\nchar {local}[{size_bytes}] = {{0}};"
    if symbol.name in RETURNS_STORAGE:
        return f"void *{local}(void) {label};\nvoid *{local}(void) {{ return storage; }}"
    if symbol.name in FILLS_OBJECT:
        return f"void {local}(void **self) {label};\nvoid {local}(void **self) {{ *self = ignore_all; }}"
    return f'void {local}(void) {label};\nvoid {local}(void) {{ called("{symbol.name}"); }}'


def write_versions(symbols: Iterable[Symbol]) -> str:
    """Linker version script that gives the symbols the versions their users ask for; "" when they ask for none."""
    versions: dict[str, list[str]] = {}
    for symbol in symbols:
        if symbol.version:
            versions.setdefault(symbol.version, []).append(f'"{symbol.name}";')
    return "".join(f"{version} {{ global: {' '.join(sorted(names))} }};\n" for version, names in versions.items())


def build_stub(out: Path, symbols: Iterable[Symbol]) -> None:
    """Compile the stand-in for the library `out.name` to `out`. Needs gcc and a linker, no C headers."""
    symbols = list(symbols)
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder) / "stub.c", Path(folder) / "versions"
        source.write_text(write_source(out.name, symbols))
        script.write_text(write_versions(symbols))
        versions = [f"-Wl,--version-script={script}"] if script.stat().st_size else []
        options = ["-shared", "-fPIC", "-O1", "-s", "-fno-builtin", "-nostdlib", "-nostartfiles"]
        run(["gcc", *options, f"-Wl,-soname,{out.name}", *versions, "-o", str(out), str(source)])
