"""Erasure on every surface: what of the forgotten samples lies where, what goes, what stays and until when, and the proof.

`needles` what is looked for · `pictures` copies of an image in another form · `scan` the search through files of any kind · `places` the
surfaces of a project · `policy` what becomes of what is found · `plan` the decisions on paper · `journal` what survives a kill ·
`act` carries them out on files · `document` the signed verdict · `erasures` what verify makes of it.
"""
