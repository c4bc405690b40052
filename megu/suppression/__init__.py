"""The suppression list: what was erased is recognised when it is offered again, and left out or refused.

`record` one file format, encrypted · `listed` matching images against records · `store` a project's list ·
`screening` data sets against it · `answers` to repeated requests. Another pipeline needs `SuppressionList` only.
"""

from megu.suppression.listed import Matches, SuppressionList

__all__ = ["Matches", "SuppressionList"]
