"""How requests come in: as files, as text of several formats, over HTTP.
What has been taken in is the inbox's (`megu.requests.inbox`).
"""
