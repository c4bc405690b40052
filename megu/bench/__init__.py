"""The benchmark: methods x targets x seeds, expanded from one file (`config`, `expansion`), scored by the same evaluation, and written as
one table (`table`), figures (`plots`) and a page (`page`) beside the published numbers (`published`).

Nothing here runs anything: `flows.bench` wires the stages together, `tasks.run.schedule` runs them.
"""
