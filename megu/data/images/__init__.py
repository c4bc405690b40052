"""Turn image files of any layout into arrays: find, decode, name and count them, and detect duplicates.
The result is a data set in the form of `megu.data.arrays`.
"""
