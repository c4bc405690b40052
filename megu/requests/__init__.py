"""Requests to forget: what one may say (`request`), where it stands (`states`), the inbox that keeps them (`inbox`), files of
requests (`files`), what is processed together (`batches`), and what must stay forgotten (`fulfilled`).
"""
