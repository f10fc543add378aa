"""The train state, the steps, and the loops around them."""
