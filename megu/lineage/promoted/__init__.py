"""What promotions leave in the lineage: the chain of champions, the rungs that were tried before, and the probes by which a server is known."""
