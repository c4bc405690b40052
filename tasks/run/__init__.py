"""How stages are run: the cache, the schedule, the runners, what a run is given and how it ends.
No stage is here.
"""
