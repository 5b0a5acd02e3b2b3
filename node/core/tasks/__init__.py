"""Tasks, from the hub or from this hospital: gate 1, the queue, the container, gate 2, the outbox."""
