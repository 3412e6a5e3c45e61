"""Parts of the benchmark chaos: a fleet of real processes, faults, clients that know the right answer, trials."""
