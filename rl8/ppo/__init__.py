"""Proximal policy optimisation: hyperparameters, advantages, losses, schedules, optimizers, the algorithm.

May import every room below trainer, tracking and view.
"""
