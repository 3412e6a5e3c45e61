"""The engine: requests, scheduler, paged KV, sampler and the executors below them."""
