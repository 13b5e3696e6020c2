"""Parts that the recipes share, in rooms by subject; a room imports only from those below it.

From the ground up: `cli`, `plots`, `splitters`, `data`, `models`, `training`, `evaluation`, `methods`,
`reports`. Beside them stands `project`, which copies a recipe into a project of its own. The
contract in setup.cfg holds the order, and tests/shared/test_floors.py checks it.

Importing this package, or a room, imports nothing else: a recipe pays only for the names it uses.
"""
