"""What is served: whether a running server answers as the champion does (`choosing`, `check`), what follows a promotion (`follow`,
`webhook`), and a server that is started again when the champion moves (`supervisor`). torch is needed to choose the probes only.
"""
