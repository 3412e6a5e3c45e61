"""Parts of `./tests/run bench handoff`."""
