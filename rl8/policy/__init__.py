"""A model and an action distribution, with the statistics that normalise observations.

May import models, distributions and specs.
"""
