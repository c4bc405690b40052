"""Reading YAML as a person means it: words that stay words, single sections, files in the middle of a merge.
Needs only PyYAML.
"""
