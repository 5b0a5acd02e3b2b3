"""What a researcher's container may import: the job contract, a loader for published datasets, a shim for Flower.

Nothing of Cloister's outside this folder is needed. In our reference image it is the package `cloister_job`; in your
own image, copy the folder under any name. `contract` needs numpy and safetensors, `dataset` pydicom and pyarrow,
`loader` numpy, `flower` flwr.
"""
