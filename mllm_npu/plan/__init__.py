"""Memory and time of a training run before it is launched, on any cluster, without one."""
