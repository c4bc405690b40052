"""Image files of any layout as arrays: finding, decoding, naming and counting them, and which are there twice.
What comes of them is a data set as `megu.data.arrays` keeps it.
"""
