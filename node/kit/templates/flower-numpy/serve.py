"""The only file of this project that knows Cloister: it serves the job contract with the ClientApp of app.py."""

import numpy as np
from app import app
from cloister_job.flower import serve
from cloister_job.initial import offer_initial


def untrained() -> list[np.ndarray]:
    """What the hub begins with, as a ServerApp would make it: two weights and a bias of 0."""
    return [np.zeros(2, np.float32), np.zeros(1, np.float32)]


offer_initial(untrained)  # started as `--initial FOLDER` it writes the untrained model there, and ends
serve(app)
