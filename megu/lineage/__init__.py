"""Lineage that can be verified: what a run was made of, sealed in a dossier that anyone who holds it can check.

`record` one record per stage, chained to one root · `dossier` the folder a run leaves · `keys` the project's secret keys ·
`commitments` samples without their ids · `index` which model saw a sample · `promoted` which version is in production, and how it got
there · `graph` the path from the model back to the data · `compare` why two runs differ · `verify` every check that can be made ·
`purged` what purges signed · `export` the same for other tools.
"""
