"""Requests to forget: what one may say (`request`), where it stands (`states`), the inbox that keeps them (`inbox`), how they come in
(`intake`), what is processed together (`batches`), and what must stay forgotten (`fulfilled`).
"""
