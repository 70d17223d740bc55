"""A trained policy in use: to act with it, evaluate it, watch it, and take it elsewhere."""
