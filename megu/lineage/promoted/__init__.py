"""What promotions leave in the lineage: the chain of champions (`champions`), the rungs that were tried before (`rungs`), and the probes
that tell from outside which version a server has (`probes`).
"""
