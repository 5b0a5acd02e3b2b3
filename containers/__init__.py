"""What runs a sealed job: the broker, the engine, volumes, the canary, and the images."""
