"""A fleet in virtual time: requests, router, pods, links and metrics, driven by the law or by a rival's formula."""
