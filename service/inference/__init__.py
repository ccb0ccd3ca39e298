"""Load models, decode uploads, form batches and classify them. Knows nothing about HTTP."""
