"""Kernels for instruction sets that this machine lacks, run by an emulator that has them. By hand, not in the gate.

`python -m tests.emulated_cpu.bochs FOLDER` edits and builds the source of Bochs 3.0, unpacked in FOLDER;
`python -m tests.emulated_cpu.boot --help` compiles check.cpp and boots it. State and figures: tests/bench/engine.md.
"""
