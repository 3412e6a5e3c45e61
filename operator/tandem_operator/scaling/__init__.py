"""The scaling law: signals and time in, replicas and reasons out. Pure: no I/O, no clock, no randomness."""
