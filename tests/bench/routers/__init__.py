"""Parts of `bench router`: pods that keep time, peers in environments of their own, an open-loop client."""
