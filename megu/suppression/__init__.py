"""The suppression list: what was erased is recognised when it is offered again, and left out or refused.

`record` the encrypted file format · `listed` matching images against records · `store` a project's list ·
`screening` data sets against it · `answers` to repeated requests. Another pipeline needs only `SuppressionList`.
"""

from megu.suppression.listed import Matches, SuppressionList

__all__ = ["Matches", "SuppressionList"]
