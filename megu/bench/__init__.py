"""The benchmark: methods x targets x seeds, expanded from one file (`config`, `expansion`), marked by the same evaluation, and put into
one table (`table`), figures (`plots`) and a page (`page`) beside the published numbers (`published`).

Nothing here runs anything: `flows.bench` is the wiring, `tasks.run.schedule` runs the stages.
"""
