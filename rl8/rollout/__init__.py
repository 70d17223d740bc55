"""One horizon of experience: its storage, collecting into it, and evaluating a policy in environments of its own.

May import env and policy.
"""
