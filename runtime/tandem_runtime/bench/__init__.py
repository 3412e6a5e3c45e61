"""Load generators: what clients would see of a router, judged by the router's own goodput rule."""
