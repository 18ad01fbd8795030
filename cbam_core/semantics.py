"""The meaning of an experiment, by number, where it has changed: an old experiment keeps the meaning it began with.

| | 1 (until version 0.1) | 2 |
|---|---|---|
| val | the part that the dataset holds out; there is no test | cut from the training images (`data.val`) |
| first weights | drawn one after the other from one seed | drawn from the seed and the module's name |
| attention in timm's networks | after the block, behind its shortcut | on the branch, before the shortcut is added |

A retry and a resume keep the number; a clone and a new submission get the current one.
"""

from typing import Literal

Semantics = Literal[1, 2]
CURRENT: Semantics = 2
EARLIEST: Semantics = 1
"""What was made before there was a number."""
