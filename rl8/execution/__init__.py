"""How the algorithm's work is computed: eagerly, on a CPU's threads, in CUDA graphs.

Knows environments, policies and rollouts; knows nothing of PPO.
"""
