"""What belongs to a training run besides its loop, which is in `rl8.trainer`."""
