"""Requests to forget: what a request may say (`request`), its states (`states`), the inbox that keeps them (`inbox`), how they come in
(`intake`), what is processed together (`batches`), and what must stay forgotten (`fulfilled`).
"""
