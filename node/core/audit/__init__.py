"""The audit log as others see it: the witness at the hub, and the epochs of a log that was set back."""
