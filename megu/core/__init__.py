"""The base of every other room: errors, parameters, stages and the digests that name their results, the project's folder, progress,
seeds.
Imports no other room.
"""
