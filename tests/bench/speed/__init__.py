"""Parts of `bench engine`: the peer's environment, checkpoints, one subprocess per engine, limits of the machine."""
