"""Artifacts and the equations between them: configuration, identity, storage, recipes, runs."""
