"""The methods that megu is compared with, one file each, as their papers define them.
`megu.unlearning.methods` finds them by name.
"""
