"""What ``megu init`` creates: a project in a new folder or in a user's own repository, in which it changes no existing content.
`plan` decides which files are needed and writes them, `parameters` makes the configuration file, `choices` knows the data sets.
"""
