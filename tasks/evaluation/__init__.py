"""The stages that evaluate a model: its predictions, the metrics, the attacks, relearning, and their figures.
One module for each stage.
"""
