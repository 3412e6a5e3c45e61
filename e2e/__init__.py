"""A real cluster, real images, real pods: the quickstart and the promises made to users."""
