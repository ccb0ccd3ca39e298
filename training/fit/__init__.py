"""Training: recipes, augmentations, teachers, and the folder that a run leaves."""
