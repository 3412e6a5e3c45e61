"""What must hold on a real cluster, as stories; run by ./tests/run e2e."""
