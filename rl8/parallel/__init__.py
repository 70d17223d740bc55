"""Several processes, each with environments of its own, that train one policy: who this one is, and what they share.

Knows torch.distributed and nothing of PPO. With one process every operation on tensors is the identity, so that callers
do not ask how many there are.
"""
