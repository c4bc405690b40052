"""What ``megu init`` makes: a project in a folder or in a user's own repository, of which it changes nothing that is there.
`plan` says which files it takes and writes them, `parameters` makes the configuration file, `choices` knows the data sets.
"""
