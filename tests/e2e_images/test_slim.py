from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.images.elf import Library, Symbol, parse_needed, parse_symbols
from e2e.images.slim import GPU_TORCH, keeps, link_tree, share_symbols
from e2e.images.stubs import FILLS_OBJECT, RETURNS_STORAGE, write_source, write_versions

DYNAMIC = """
 0x0000000000000001 (NEEDED)             Shared library: [libtorch_cuda.so]
 0x000000000000000e (SONAME)             Library soname: [libtorch_python.so]
"""
SYMBOLS = """
Symbol table '.dynsym' contains 3 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND
     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND ncclGetVersion
     2: 0000000000001000    24 OBJECT  WEAK   DEFAULT   21 _ZTIN3c104TypeE
     3: 0000000000002000  0x10 FUNC    GLOBAL DEFAULT   12 cudaMalloc@@libcudart.so.13
"""


def function(name: str, version: str = "") -> Symbol:
    return Symbol(name, version, "FUNC", 8, True)


def library(offers: str = "", takes: str = "", needed: str = "") -> Library:
    return Library(
        frozenset(needed.split()), {n: function(n) for n in offers.split()}, {n: function(n) for n in takes.split()}
    )


@pytest.mark.parametrize(
    "path",
    [
        "torch/lib/libtorch_cpu.so",
        "torch/lib/libc10_cuda.so",
        "torch/bin/torch_shm_manager",
        "torch-2.13.0.dist-info/METADATA",
        "numpy/testing/overrides.py",
        "tests_of_mine.py",
    ],
)
def test_what_a_cpu_runs_stays(path: str) -> None:
    assert keeps(path, gpu=False)
    assert keeps(path, gpu=True)


@pytest.mark.parametrize(
    "path",
    [
        "nvidia/cudnn/lib/libcudnn.so.9",
        "nvidia_nccl_cu13-2.29.7.dist-info/METADATA",
        "triton/_C/libtriton.so",
        "cuda_bindings-13.5.0.dist-info/RECORD",
        "torch/lib/libtorch_cuda.so",
    ],
)
def test_what_only_a_gpu_runs_stays_only_for_gpus(path: str) -> None:
    assert not keeps(path, gpu=False)
    assert keeps(path, gpu=True)


@pytest.mark.parametrize(
    "path",
    [
        "torch/include/ATen/ATen.h",
        "setuptools-84.2.1.dist-info/METADATA",
        "bin/f2py",
        "sympy/core/tests/test_args.py",
        "numpy/tests/test_ctypeslib.py",
        "distutils-precedence.pth",
        "torch/bin/protoc",
    ],
)
def test_tests_headers_and_build_tools_never_stay(path: str) -> None:
    assert not keeps(path, gpu=False)
    assert not keeps(path, gpu=True)


def test_the_slim_tree_shares_its_files_with_the_full_one_and_leaves_out_those_of_the_layer_below(
    tmp_path: Path,
) -> None:
    for name in ("full/torch/nn.py", "full/nvidia/a.so", "full/yaml/b.py", "base/yaml/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    link_tree(tmp_path / "full", tmp_path / "slim", gpu=False, without=[tmp_path / "base"])
    assert [path.name for path in (tmp_path / "slim").rglob("*") if path.is_file()] == ["nn.py"]
    assert (tmp_path / "slim/torch/nn.py").samefile(tmp_path / "full/torch/nn.py")


def test_readelf_output_is_read_with_versions_sizes_and_direction() -> None:
    assert parse_needed(DYNAMIC.splitlines()) == {"libtorch_cuda.so"}
    assert parse_symbols(SYMBOLS.splitlines()) == [
        Symbol("ncclGetVersion", "", "FUNC", 0, False),
        Symbol("_ZTIN3c104TypeE", "", "OBJECT", 24, True),
        Symbol("cudaMalloc", "libcudart.so.13", "FUNC", 16, True),
    ]


def test_stand_ins_offer_what_is_taken_once_and_nothing_that_stays() -> None:
    kept = [library(offers="here", takes="here nccl cuda hidden"), library(takes="shared")]
    real = {"libnccl.so.2": library("nccl shared"), "libtorch_cuda.so": library("cuda shared unused")}
    shares = share_symbols(kept, real, [library("hidden")])
    names = {soname: [symbol.name for symbol in symbols] for soname, symbols in shares.items()}
    assert names == {"libnccl.so.2": ["nccl", "shared"], "libtorch_cuda.so": ["cuda", "hidden"]}


names = st.lists(st.sampled_from("abcdefgh"), unique=True).map(" ".join)


@given(taken=names, offered=names, first=names, second=names, indirect=names)
def test_every_symbol_that_is_missing_without_the_real_libraries_has_exactly_one_stand_in(
    taken: str, offered: str, first: str, second: str, indirect: str
) -> None:
    real = {"libnccl.so.2": library(first), sorted(GPU_TORCH)[0]: library(second)}
    shares = share_symbols([library(offered, taken)], real, [library(indirect)])
    given_names = [symbol.name for symbols in shares.values() for symbol in symbols]
    missing = set(taken.split()) - set(offered.split())
    assert sorted(given_names) == sorted(missing & set(f"{first} {second} {indirect}".split()))


def test_a_stand_in_aborts_with_its_symbol_except_where_the_import_calls_it() -> None:
    ctor, storage = min(FILLS_OBJECT), min(RETURNS_STORAGE)
    symbols = [function("ncclSend"), function(ctor), function(storage), Symbol("_ZTI1A", "", "OBJECT", 24, True)]
    source = write_source("libnccl.so.2", [*symbols, Symbol("table", "", "OBJECT", 40, True)])
    assert '#define LIBRARY "libnccl.so.2"' in source
    assert 'called("ncclSend")' in source
    assert f'called("{ctor}")' not in source
    assert f'called("{storage}")' not in source
    assert '{class_type_info + 2 * sizeof(void *), "1A", 0}' in source
    assert '[40] __asm__("table")' in source


def test_symbols_get_the_versions_their_users_ask_for() -> None:
    assert write_versions([function("a")]) == ""
    script = write_versions([function("b", "V1"), function("a", "V1"), function("c", "V2"), function("d")])
    assert script == 'V1 { global: "a"; "b"; };\nV2 { global: "c"; };\n'
