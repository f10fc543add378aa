"""What a model that never saw the forgotten data would say, one module for each family."""
