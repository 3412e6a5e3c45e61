"""Limits to judge policies by: what nothing can undercut, and what one could do who knows the future or the present."""
