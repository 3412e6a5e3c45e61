"""What the benchmark `autoscaler` is made of: plan of runs, their cache, statistics, rows and targets."""
