"""Where data sets come from: the chain of providers, downloads, and the formats of the well-known ones.
Every source gives the same bytes for the same data set.
"""
