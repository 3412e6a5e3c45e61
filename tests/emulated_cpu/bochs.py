"""Makes an emulator with AVX-512, VNNI, BF16 and AMX of the source of Bochs 3.0: `python -m ... FOLDER`.

Linux grants AMX only where XFD is, which Bochs 3.0 lacks: it is added, with its fault on the first use of a tile. Fast
strings are said to be on: Linux 6.1 breaks memmove where only FSRM is. The signed bytes of TDPBSUD are made signed:
Bochs 3.0 takes them for unsigned, against Intel's manual.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

CONFIGURE: Final = (
    "./configure",
    *("--with-nogui", "--enable-cpu-level=6", "--enable-x86-64", "--enable-avx", "--enable-evex", "--enable-amx"),
    *("--enable-repeat-speedups", "--enable-handlers-chaining", "--disable-docbook", "--disable-plugins"),
)
XFD: Final = "BX_CPU_THIS_PTR msr.ia32_xfd"
TILES: Final = "BX_XCR0_XTILEDATA_MASK"
READ: Final = (
    f"  if (index == 0x1a0) {{ *msr = 1; return true; }}\n"
    f"  if (index == 0x1c4) {{ *msr = {XFD}; return true; }}\n"
    f"  if (index == 0x1c5) {{ *msr = {XFD}_err; return true; }}\n"
)
WRITE: Final = (
    f"  if (index == 0x1c4) {{ {XFD} = val_64; handleAvxModeChange(); return true; }}\n"
    f"  if (index == 0x1c5) {{ {XFD}_err = val_64; return true; }}\n"
)
FAULT: Final = f"  if ({XFD} & {TILES}) {{ {XFD}_err |= {TILES}; exception(BX_NM_EXCEPTION, 0); }}\n"
SIGNED: Final = "  return " + " + ".join(f"Bit8s(xbyte[{at}]) * ybyte[{at}]" for at in range(4)) + ";\n"
EDITS: Final = (
    # file, a place after which, the text before which, what is put there
    ("cpu.h", "", "  Bit64u ia32_xss;", "  Bit64u ia32_xfd, ia32_xfd_err;\n"),
    ("init.cc", "", "  BX_CPU_THIS_PTR msr.ia32_xss = 0;", f"  {XFD} = {XFD}_err = 0;\n"),
    ("msr.cc", "BX_CPU_C::rdmsr(", "  if (index < BX_MSR_MAX_INDEX)", READ),
    ("msr.cc", "BX_CPU_C::wrmsr(", "  if (index < BX_MSR_MAX_INDEX)", WRITE),
    ("proc_ctrl.cc", "clear_evex_ok", "    set_amx_ok();", f"    if ({XFD} & {TILES}) clear_amx_ok(); else\n"),
    ("proc_ctrl.cc", "BX_CPU_C::BxNoAMX", "  BX_ASSERT(0);", FAULT),
    ("cpuid.cc", "XSAVEOPT", "    if (is_cpu_extension_supported(BX_ISA_XSAVEC", "    leaf->eax |= 1 << 4;\n"),
    ("cpuid.cc", "[subfunction].offset", "      leaf->edx = 0;", "      if (subfunction == 18) leaf->ecx |= 4;\n"),
    ("avx/amx.cc", "DPBDSU(", "  Bit32s p0dword", SIGNED),
)


def edit(folder: Path) -> None:
    """Edits the files in `folder`/cpu. Raises ValueError when a place is not there or the edit is made already."""
    for name, after, before, text in EDITS:
        path = folder / "cpu" / name
        source = path.read_text()
        place = source.find(before, max(source.find(after), 0))
        if place < 0 or text in source:
            raise ValueError(f"{path}: edited already, or not of Bochs 3.0: no {before!r}")
        path.write_text(source[:place] + text + source[place:])


def main() -> int:
    """Edits, configures, makes; some 10 minutes of one core."""
    folder = Path(sys.argv[1])
    edit(folder)
    subprocess.run(CONFIGURE, cwd=folder, check=True)
    subprocess.run(("make",), cwd=folder, check=True)
    print(folder / "bochs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
