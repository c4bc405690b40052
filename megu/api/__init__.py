"""What megu names in its public face: a data set, a request, an unlearning, an evaluation and a verdict as plain function calls, and
a project. All but the project needs torch and numpy alone.
"""
