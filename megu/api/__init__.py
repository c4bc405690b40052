"""The public interface of megu: data set, request, unlearning, evaluation and verdict as plain function calls, and a project.
All but the project need only torch and numpy.
"""
