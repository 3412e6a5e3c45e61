from __future__ import annotations

from pathlib import Path

import pytest

from e2e.images.rootfs import library_target, parse_ldd, walk_stdlib
from e2e.images.tools import BuildError

LDD = """
/usr/local/bin/python3.11:
\tlinux-vdso.so.1 (0x00007ffd0a1d2000)
\tlibpython3.11.so.1.0 => /opt/py/lib/libpython3.11.so.1.0 (0x00007f2c6f600000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2c6f41e000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f2c6fc3c000)
/usr/bin/busybox:
\tnot a dynamic executable
"""


def test_ldd_names_libraries_and_the_loader_but_not_what_the_kernel_brings() -> None:
    paths = {"/opt/py/lib/libpython3.11.so.1.0", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}
    assert parse_ldd(LDD) == {Path(path) for path in paths}


def test_a_library_that_the_machine_lacks_is_named() -> None:
    with pytest.raises(BuildError, match=r"libtcl8\.6\.so"):
        parse_ldd("_tkinter.so:\n\tlibtcl8.6.so => not found\n")


@pytest.mark.parametrize(
    ("library", "target"),
    [
        ("/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("/usr/lib/aarch64-linux-gnu/libz.so.1", "usr/lib/aarch64-linux-gnu/libz.so.1"),
        ("/home/me/.pyenv/versions/3.11.7/lib/libpython3.11.so.1.0", "usr/local/lib/libpython3.11.so.1.0"),
    ],
)
def test_system_libraries_keep_their_place_and_others_move_to_usr_local(library: str, target: str) -> None:
    assert library_target(Path(library)) == target


def test_the_standard_library_goes_without_tests_packages_and_what_debian_leaves_dangling(tmp_path: Path) -> None:
    files = ["os.py", "json/decoder.py", "test/test_os.py", "unittest/mock.py", "site-packages/pip.py", "os.pyc"]
    files += ["config-3.11/libpython.a", "lib-dynload/zlib.so", "json/__pycache__/decoder.pyc", "sitecustomize.py"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "LICENSE.txt").symlink_to("/does/not/exist")
    found = {path.relative_to(tmp_path).as_posix() for path in walk_stdlib(tmp_path)}
    assert found == {"os.py", "json/decoder.py", "unittest/mock.py"}
