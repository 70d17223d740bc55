"""Parts that some tasks want in the loop, made with callbacks and extra losses alone.

Each is an example of what can be done without a fork. Callbacks go into `Trainer(callbacks=[...])`, or into a file of
one's own in `conf/callbacks`; terms of the loss into `extra_losses`.
"""
