"""Outcomes as a page: plots drawn here, no script and nothing loaded from elsewhere."""
