"""The only file of this project that knows Cloister: it serves the job contract with the ClientApp of app.py."""

from app import app
from cloister_job.flower import serve

serve(app)
