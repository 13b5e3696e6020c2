"""Parts that the recipes share: small modules of plain functions and classes.

Importing this package imports nothing else, so that a recipe pays only for the parts it uses.
"""
