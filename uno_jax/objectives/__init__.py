"""What a model is asked to match: output families, terms, the redirect."""
