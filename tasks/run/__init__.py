"""How stages are run: the cache, the schedule, the runners, the inputs of a run and how it ends.
No stage is defined here.
"""
