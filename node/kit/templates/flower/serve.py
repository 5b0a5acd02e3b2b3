"""The only file of this project that knows Cloister: it serves the job contract with the ClientApp of app.py."""

import torch
from app import app
from cloister_job.flower import serve
from cloister_job.initial import offer_initial
from task import Net


def untrained() -> dict[str, torch.Tensor]:
    """What the hub begins with, as a ServerApp would make it; equal every time it is made."""
    torch.manual_seed(0)
    return Net().state_dict()


offer_initial(untrained)  # started as `--initial FOLDER` it writes the untrained model there, and ends
serve(app)
