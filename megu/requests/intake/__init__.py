"""How requests come in: as files, as text in several formats, over HTTP.
Once taken in, they belong to the inbox (`megu.requests.inbox`).
"""
