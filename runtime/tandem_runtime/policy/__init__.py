"""The router's laws without clock or socket: who waits, who goes next, where to. The simulator runs this code."""
