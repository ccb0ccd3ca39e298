"""Training: recipes, augmentations, teachers and run folders."""
