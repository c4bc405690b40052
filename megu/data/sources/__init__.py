"""Where data sets come from: the chain of providers, downloads, and the formats of the well-known ones.
All give the same bytes for the same data set.
"""
