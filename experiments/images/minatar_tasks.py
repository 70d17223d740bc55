"""Registers MinAtar's tasks with Gymnasium: `env.id=minatar_tasks:MinAtar/Breakout-v1`."""

from minatar.gym import register_envs

register_envs()
