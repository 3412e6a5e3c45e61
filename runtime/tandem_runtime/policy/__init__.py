"""The router's laws without a clock or a socket: who waits, who goes next, where to. The simulator runs the same code."""
