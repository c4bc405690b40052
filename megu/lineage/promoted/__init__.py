"""What promotions leave in the lineage: the chain of champions (`champions`), the rungs that were tried before (`rungs`), and the probes
by which a server is known from outside (`probes`).
"""
