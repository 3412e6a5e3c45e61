"""Parts of the soak: the pods that are soaked, and the clients that do it."""
