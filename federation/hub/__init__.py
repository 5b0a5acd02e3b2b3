"""The hub: a real Flower SuperLink behind one mutual-TLS port, the control channel, and the conductor of runs."""
