"""Runs sweeps as jobs of a remote Ray cluster: submit, list, follow, stop.

    submission.py   what is sent: the checked sweep, the user's modules, and a digest that identifies the submission
    modules.py      the files that `--module` adds to it
    entrypoint.py   what runs on the head: compares versions, then becomes `kd-ray launch`
    client.py       the cluster's job server, through Ray's own client; the only module here that imports ray
    verbs.py        submit, list, follow, stop

The machine that submits a job stores nothing about it. The job server keeps the submission and the output of the launch until its head
ends. Completed trials are in the store, so the same submission to another head continues the sweep.
"""
