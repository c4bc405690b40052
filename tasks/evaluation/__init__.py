"""The stages that judge a model: its predictions, the marks, the attacks, relearning, and the figures of them.
One module a stage.
"""
