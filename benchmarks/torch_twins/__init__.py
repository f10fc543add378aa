"""Short PyTorch twins of our models and steps, to compare with."""
