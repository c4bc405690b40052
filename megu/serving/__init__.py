"""What is served: whether a running server answers as the champion does (`choosing`, `check`), what follows a promotion (`follow`,
`webhook`), and a server that is restarted when the champion moves (`supervisor`). Only choosing the probes needs torch.
"""
