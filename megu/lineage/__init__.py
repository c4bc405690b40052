"""Lineage that can be verified: what a run was made of, sealed in a dossier, checked by anyone who holds it.

`record` one record a stage, chained to one root · `dossier` the folder a run leaves · `keys` the project's secrets ·
`commitments` samples without their ids · `verify` every check that can be made (`checks` here, `versioned` in git
and DVC, `tracked` in MLflow) · `replay` a fresh evaluation · `index` which model
saw a sample · `graph` the way from the model back to the data · `compare` why two runs differ.
"""
