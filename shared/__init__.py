"""Parts that the recipes share, in rooms by subject.

A room imports only from the rooms below it. From the ground up:

- `cli`: flags, errors, files, processes; what any command-line program needs
- `plots`: plots of arrays
- `splitters`: stratified splits of multilabel data
- `data`: from files to labelled texts, and to training, validation and test set
- `images`: images with their classes, masks and boxes, and how they are changed
- `models`: loading, classification heads, networks from scratch, tokenizers
- `training`: the Trainer and its collators, losses, callbacks, checkpoints
- `evaluation`: from logits to labels to metrics
- `methods`: ways to classify texts
- `reports`: what a person looks at

`project` stands beside them; it copies a recipe into a project of its own. The contracts of
import-linter in setup.cfg hold the order.

Importing this package, or a room, imports nothing else: names are imported on first use.
"""
