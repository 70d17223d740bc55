"""From words to a checked plan: composing YAML, names of classes, types and ranges.

Loads neither torch nor MLflow. May import `ppo.hyperparameters`, `ppo.schedules`, `settings` and `tracking`'s texts.
"""
