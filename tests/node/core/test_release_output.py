"""What a job left for gate 2, as core keeps it."""

from __future__ import annotations

from pathlib import Path

from mediator.types import OutputFile
from node.core.tasks.release_output import keep_output, kept_output


def test_an_output_that_was_kept_before_is_kept_anew(tmp_path: Path) -> None:
    """A crash between keeping an output and writing that down has the job computed again."""
    keep_output(tmp_path, [OutputFile("metrics.json", b"{}"), OutputFile("model.safetensors", b"first")])
    keep_output(tmp_path, [OutputFile("metrics.json", b"{}")])
    assert kept_output(tmp_path) == [OutputFile("metrics.json", b"{}")]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
