"""Sweeps: many runs of one command. What their folder keeps, one job, jobs side by side, a search.

Hydra deals out the jobs. What goes wrong in a job is kept in the sweep's folder rather than raised there: Hydra would
print it in its own way, and drop the other jobs' results.
"""
