"""For each reason a trial may end with: what to change, in one line."""

from __future__ import annotations

from collections.abc import Mapping

from mediator.errors import Code
from mediator.exits import RAISED

ADVICE: Mapping[Code, str] = {
    # the permit, as gate 1 reads it
    Code.CONDITION_UNENFORCEABLE: "take the condition out of the draft: no node can enforce it as it stands there",
    Code.METRIC_UNPROTECTED: "under a privacy budget a metric has one value: minimum = maximum, or it is left out",
    Code.PERMIT_TOO_LARGE: "fewer tensors, or tensors of fewer bytes: what leaves must fit into one signed envelope",
    Code.TENSOR_ORDER: "list the draft's tensors in the order of their numbers: 0, 1, 2, … 10, 11",
    Code.CONFIG_NOT_PERMITTED: "give --config exactly the keys that the draft's config lists, each within its range",
    Code.MODEL_NOT_PERMITTED: "the model given has other tensors than the draft lists: change one of the two",
    Code.KIND_NOT_PERMITTED: "add the kind of task to the draft's kinds",
    Code.DATASET_NOT_PERMITTED: "the draft asks for a column that the dataset does not have",
    Code.TOO_FEW_STUDIES: "give --studies a larger number, or lower the draft's minimum_studies",
    Code.ROUNDS_EXHAUSTED: "ask for more maximum_rounds in the draft, or try fewer --rounds",
    Code.BYTES_EXHAUSTED: "ask for a larger byte_budget in the draft: a round costs about twice the model's bytes",
    Code.EPSILON_EXHAUSTED: "ask for a larger epsilon, more noise, or fewer rounds",
    Code.RUN_ORDER_MISMATCH: "the order and the draft differ",
    Code.RESOURCES_EXCEEDED: "ask for less in the draft's resources",
    Code.IMAGE_NOT_APPROVED: "the image declares a volume or names no program: give it an ENTRYPOINT and no VOLUME",
    # the sandbox
    Code.CANARY_FAILED: "the engine does not hold the sandbox; after probe_out_of_memory: ask for more memory_bytes",
    Code.NOT_SEALED: "this machine's engine did not do as asked: a newer engine, or another configuration",
    Code.GPU_UNAVAILABLE: "this machine's engine cannot give the GPU: deploy/docs/queue.md says how it learns to",
    Code.JOB_FAILED: "the program ended without DONE: its last words are below",
    Code.STOPPED: "the container was stopped from outside",
    Code.OUT_OF_MEMORY: "ask for more memory_bytes in the draft, or read fewer studies at a time",
    Code.TIME_LIMIT: "ask for a longer wall_time_s in the draft, or do less in a task",
    Code.CONTRACT_VIOLATION: "write /out/<n>/ as the contract says: model.safetensors, metrics.json, then DONE",
    Code.CONTRACT_MISSING: "the task's folder /out/<n> was gone when DONE was seen: leave it there",
    Code.CONTRACT_NOT_A_FOLDER: "/out/<n> is a folder, not a file or a link",
    Code.CONTRACT_TOO_MANY_FILES: "write only the files of the contract into /out, or ask for more out_files",
    Code.CONTRACT_UNKNOWN_NAME: "a file in /out/<n> that the contract does not name: temporary files belong into /tmp",
    Code.CONTRACT_NOT_A_REGULAR_FILE: "links, pipes and folders have no place in /out/<n>",
    Code.CONTRACT_HARD_LINK: "a file in /out/<n> has two names: write it instead of linking it",
    Code.CONTRACT_TOO_LARGE: "the files of a task are larger than the draft's out_bytes",
    Code.CONTRACT_UNREADABLE: "leave the files in /out/<n> readable for their own user",
    Code.CONTRACT_OUT_FULL: "/out is full: ask for more out_bytes or out_files, or write less",
    # gate 2: tensors
    Code.HEADER_TOO_LARGE: "the header of model.safetensors is over 1 MiB: fewer tensors",
    Code.HEADER_MALFORMED: "model.safetensors is not a safetensors file: write it with the library",
    Code.METADATA_NOT_PERMITTED: "save model.safetensors without metadata",
    Code.TENSOR_NOT_PERMITTED: "leave that tensor out, or ask for it in the draft's tensors",
    Code.TENSOR_MISSING: "hand in every tensor that the draft lists, under its very name",
    Code.TENSOR_SHAPE: "hand the tensor in with the shape that the draft lists, or change the draft",
    Code.TENSOR_DTYPE: "hand the tensor in with the type that the draft lists: .astype(numpy.float32) for F32",
    Code.TENSOR_OFFSETS: "model.safetensors has gaps or overlaps: write it with the library",
    Code.TRAILING_BYTES: "nothing may follow the last tensor in model.safetensors",
    Code.NOT_FINITE: "the training diverged (NaN or infinity): a lower learning rate, or look for a division by 0",
    # gate 2: metrics and files
    Code.METRICS_TOO_LARGE: "metrics.json is over 8 KiB: numbers only, and few",
    Code.METRICS_MALFORMED: "metrics.json is one flat JSON object of numbers; a count is a whole number",
    Code.METRIC_NOT_PERMITTED: "leave that metric out, or ask for it in the draft's metrics of this kind of task",
    Code.METRIC_MISSING: "hand in every metric that the draft lists for this kind of task",
    Code.METRIC_OUT_OF_RANGE: "the value is outside the range in the draft: mend the value, or ask for another range",
    Code.COUNT_BELOW_THRESHOLD: "a count stands for too few persons: more studies, or ask for a lower count_threshold",
    Code.FILE_NOT_PERMITTED: "leave only what this kind of task hands in: no model after an evaluation",
    Code.FILE_MISSING: "hand in the file before DONE: model.safetensors after training, metrics.json always",
    Code.MALFORMED: "the draft has a value that has no canonical form",
    **dict.fromkeys(RAISED.values(), "the program ended by this exception: its last words are below"),
    RAISED["MemoryError"]: "the program asked for more memory than it has: more memory_bytes, or smaller batches",
    RAISED["OutOfMemoryError"]: "the GPU's memory is full: smaller batches, or ask for a larger GPU",
    RAISED["ModuleNotFoundError"]: "the image lacks a package: COPY it in; there is no network in the sandbox",
    RAISED["PermissionError"]: "only /out and /tmp can be written, and the program is not root",
    RAISED["OSError"]: "only /out and /tmp can be written, both are bounded, and there is no network",
    RAISED["NoReply"]: "the ClientApp must answer with one ArrayRecord after training, and no error",
}


def advice_for(code: Code) -> str:
    """What to change; a reason that no trial should end with says so."""
    return ADVICE.get(code, "not a thing that an image can mend: please report it")
